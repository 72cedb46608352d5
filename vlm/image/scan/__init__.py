"""Scans images: everything about an untrusted file but its pixels, in one bounded pass.

Standard library only, so that the router needs no decoder. A scan takes a step for each chunk, segment or block, never
for each byte, and :class:`~vlm.image.limits.ImageLimits` bounds the steps: 20 MiB take milliseconds, whatever they are.
Its counterpart is :func:`essential`: the same image without all that a decoder need not see.
"""

from __future__ import annotations

from typing import Protocol

from vlm.errors import InvalidImage
from vlm.image.limits import ImageLimits
from vlm.image.scan import bmp, gif, jpeg, png, webp
from vlm.image.scan.facts import FORMATS, ImageScan, not_an_image
from vlm.image.scan.memory import decoded_bytes
from vlm.image.scan.others import name_of

__all__ = ["FORMATS", "ImageLimits", "ImageScan", "decoded_bytes", "essential", "scan", "upright_size"]


class _Format(Protocol):
    """What the module of a format offers."""

    def scan(self, data: bytes, limits: ImageLimits) -> ImageScan: ...

    def essential(self, data: bytes, limits: ImageLimits) -> bytes: ...


def scan(data: bytes, limits: ImageLimits = ImageLimits()) -> ImageScan:
    """Read what an encoded image says about itself, and check it against ``limits``.

    Raises:
        InvalidImage: The data is not an image of an accepted format, it is damaged, or a limit is exceeded.
    """
    if not data:
        raise InvalidImage("The image is empty.", code="empty_image_file")
    if len(data) > limits.max_bytes:
        raise InvalidImage(
            f"The image has {len(data)} bytes; at most {limits.max_bytes} are accepted.", code="image_file_too_large"
        )
    found = _format_of(data).scan(data, limits)
    _check_size(found, limits)
    return found


def upright_size(data: bytes, limits: ImageLimits = ImageLimits()) -> tuple[int, int]:
    """(width, height) in pixels after the EXIF orientation is applied.

    Raises:
        InvalidImage: As for :func:`scan`.
    """
    return scan(data, limits).size


def essential(data: bytes, limits: ImageLimits = ImageLimits()) -> bytes:
    """The first frame of an image that has been scanned, as a file without metadata.

    Decoders see nothing else of an untrusted file, so that broken metadata does no harm and none of it is parsed.
    """
    return _format_of(data).essential(data, limits)


def _format_of(data: bytes) -> _Format:
    if data.startswith(png.SIGNATURE):
        return png
    if data.startswith(jpeg.SIGNATURE):
        return jpeg
    if data.startswith(gif.SIGNATURES):
        return gif
    if data.startswith(b"BM"):
        return bmp
    if webp.fits(data):
        return webp
    raise not_an_image(name_of(data))


def _check_size(found: ImageScan, limits: ImageLimits) -> None:
    if found.width * found.height > limits.max_pixels:
        raise InvalidImage(f"The image has more than {limits.max_pixels} pixels.", code="image_too_large")
    if max(found.size) > limits.max_side:
        raise InvalidImage(f"A side of the image has more than {limits.max_side} pixels.", code="image_too_large")
    if min(found.size) < limits.min_side:
        raise InvalidImage(
            f"Each side of the image must have at least {limits.min_side} pixels.", code="image_too_small"
        )
