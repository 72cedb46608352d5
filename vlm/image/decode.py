"""Reads images from untrusted bytes, within limits. PIL only: no torch, no HTTP.

``inspect`` reads the header only, so that the router can refuse an image early; ``decode`` reads the pixels. Every
failure is an :class:`~vlm.errors.InvalidImage` with a message of our own, because the text of a decoder's exception
must not reach a client.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

from PIL import ExifTags, Image

from vlm.errors import InvalidImage

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")

# What PIL's decoders raise on hostile bytes: found by flipping bytes of valid files, with closely related exceptions.
_DECODER_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    SyntaxError,
    LookupError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
)

# By EXIF orientation. Not by ImageOps.exif_transpose, which also rewrites other metadata and fails on odd fields.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits on an image: of its file in bytes, of its area and its shorter side in pixels."""

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 40_000_000
    min_side: int = 1


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What the header says: the name of the format, and the size as stored, before the EXIF orientation is applied."""

    format: str
    width: int
    height: int


def inspect(data: bytes, limits: ImageLimits = ImageLimits()) -> ImageInfo:
    """Read the header of an encoded image and check it against ``limits``.

    Raises:
        InvalidImage: The data is not an image of an accepted format, or a limit is exceeded.
    """
    with _open(data, limits) as image:
        # Some cameras write a second image behind the first. PIL calls that MPO, but the first is a plain JPEG.
        return ImageInfo("JPEG" if image.format == "MPO" else str(image.format), image.width, image.height)


def decode(data: bytes, limits: ImageLimits = ImageLimits()) -> Image.Image:
    """Decode the first frame as RGB, turned upright by its EXIF orientation.

    Raises:
        InvalidImage: As for :func:`inspect`, or the pixels cannot be read.
    """
    with _open(data, limits) as image:
        try:
            return _upright(_as_rgb(image), image.getexif().get(ExifTags.Base.Orientation))
        except _DECODER_ERRORS as error:
            raise InvalidImage(
                "The image is damaged or cut short: its pixels cannot be read.", code="image_parse_error"
            ) from error


def upright_size(data: bytes, limits: ImageLimits = ImageLimits()) -> tuple[int, int]:
    """(width, height) of the image that :func:`decode` returns, without decoding pixels.

    Raises:
        InvalidImage: As for :func:`inspect`, or the metadata cannot be read.
    """
    with _open(data, limits) as image:
        try:
            sideways = _orientation_in_header(image, data) in _SIDEWAYS
        except _DECODER_ERRORS as error:
            raise InvalidImage(
                "The image is damaged: its metadata cannot be read.", code="image_parse_error"
            ) from error
        return (image.height, image.width) if sideways else image.size


def _open(data: bytes, limits: ImageLimits) -> Image.Image:
    if not data:
        raise InvalidImage("The image is empty.", code="empty_image_file")
    if len(data) > limits.max_bytes:
        raise InvalidImage(
            f"The image has {len(data)} bytes; at most {limits.max_bytes} are accepted.", code="image_file_too_large"
        )
    image = _read_header(data, limits)
    if image.width * image.height > limits.max_pixels:
        raise _too_large(limits)
    if min(image.size) < limits.min_side:
        raise InvalidImage(
            f"Each side of the image must have at least {limits.min_side} pixels.", code="image_too_small"
        )
    return image


def _read_header(data: bytes, limits: ImageLimits) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(limits) from error
    except _DECODER_ERRORS as error:
        raise InvalidImage(
            f"The data is not an image in a supported format ({', '.join(FORMATS)}).", code="invalid_image_format"
        ) from error


def _too_large(limits: ImageLimits) -> InvalidImage:
    return InvalidImage(f"The image has more than {limits.max_pixels} pixels.", code="image_too_large")


def _as_rgb(image: Image.Image) -> Image.Image:
    """As ``PIL.Image.convert`` to RGB, but 16-bit grey is scaled to 8 bits, where PIL would clip it."""
    if image.mode == "I;16":
        image = image.point(lambda value: value / 257)
    if isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # gives the same colours, without PIL's warning about palettes with transparency
    return image.convert("RGB")


def _upright(image: Image.Image, orientation: object) -> Image.Image:
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _orientation_in_header(image: Image.Image, data: bytes) -> object:
    """The EXIF orientation. PIL would decode a PNG's pixels to reach the chunks behind, so they are cut out here."""
    if image.format != "PNG" or "exif" in image.info:
        return image.getexif().get(ExifTags.Base.Orientation)
    with Image.open(io.BytesIO(_without_pixels(data)), formats=("PNG",)) as rest:
        return Image.Image.getexif(rest).get(ExifTags.Base.Orientation)


def _without_pixels(data: bytes) -> bytes:
    """A PNG's signature and chunks, with an empty one in place of those that hold pixels."""
    kept, at = [data[:8]], 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if data[at + 4 : at + 8] not in (b"IDAT", b"fdAT", b"IEND"):
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, bytes(4), b"IDAT", bytes(4)])
