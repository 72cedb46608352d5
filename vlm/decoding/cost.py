"""What an image says about itself before any pixel is decoded: how many bytes decoding it takes, and its size."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from vlm.image.scan import ImageLimits, decoded_bytes, scan
from vlm.types import Cropped, EncodedImage

# The limits on an image's size are the processor's, and are applied where the image is decoded.
_ANY_SIZE = ImageLimits(max_bytes=sys.maxsize, max_pixels=sys.maxsize, max_side=sys.maxsize, min_side=0)

# Each part takes about a microsecond. Photographs have ten to fifty; a GIF has a block for each 255 bytes.
_FEW_PARTS = replace(_ANY_SIZE, max_chunks=200, max_blocks=2000)


@dataclass(frozen=True, slots=True)
class Announced:
    """What an image is announced to be.

    Attributes:
        memory_bytes: Bytes that decoding and resizing it will hold at once, at most.
        size: (width, height) in pixels of the upright image, or of the part.
    """

    memory_bytes: int
    size: tuple[int, int]


def announced(image: EncodedImage, *, few_parts: bool = False) -> Announced:
    """What ``image`` says.

    Args:
        image: The encoded image, or a part of one, which is decoded as a whole.
        few_parts: Refuse an image of many parts, which take a step each, so that an event loop can wait for this.

    Raises:
        InvalidImage: It is not an image of an accepted format, or is built of more parts than any image.
    """
    found = scan(bytes_of(image), _FEW_PARTS if few_parts else _ANY_SIZE)
    return Announced(decoded_bytes(found), image.size(found.size) if isinstance(image, Cropped) else found.size)


def bytes_of(image: EncodedImage) -> bytes:
    """The encoded image."""
    return image.image if isinstance(image, Cropped) else image
