"""How many bytes it takes to decode an image: an estimate made before any pixel is decoded."""

from __future__ import annotations

import sys

from vlm.image.scan import ImageLimits, decoded_bytes, scan

# The limits on an image's size are the processor's, and are applied where the image is decoded.
_ANY_SIZE = ImageLimits(max_bytes=sys.maxsize, max_pixels=sys.maxsize, max_side=sys.maxsize, min_side=0)


def decoding_bytes(image: bytes) -> int:
    """Bytes that decoding and resizing ``image`` will hold at once, at most.

    Raises:
        InvalidImage: It is not an image of an accepted format, or is built of more parts than any image.
    """
    return decoded_bytes(scan(image, _ANY_SIZE))
