"""How many bytes it takes to decode an image: an estimate from its header, made before any pixel is decoded."""

from __future__ import annotations

import sys

from vlm.image.decode import ImageLimits, inspect

BYTES_PER_PIXEL = 12
"""An RGB image has 4 bytes a pixel in Pillow; as it is decoded, converted and turned upright, three are held."""

WEBP_BYTES_PER_PIXEL = 24
"""libwebp holds the file's canvas twice beside those."""

COPIES_OF_FILE = 2

_ANY = ImageLimits(max_bytes=sys.maxsize, max_pixels=sys.maxsize, min_side=0)


def decoding_bytes(image: bytes) -> int:
    """Bytes that decoding and resizing ``image`` will hold at once, at most.

    Measured on images of 40 megapixels: baseline JPEG, PNG and BMP 8 bytes a pixel, progressive JPEG, RGBA and images
    that are turned upright 12, GIF 5, WebP 20. The limits of an image are checked where it is decoded.

    Raises:
        InvalidImage: It is not an image of an accepted format.
    """
    header = inspect(image, _ANY)
    per_pixel = WEBP_BYTES_PER_PIXEL if header.format == "WEBP" else BYTES_PER_PIXEL
    return header.width * header.height * per_pixel + COPIES_OF_FILE * len(image)
