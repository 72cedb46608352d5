"""Decodes untrusted bytes to upright RGB images, within limits. Needs Pillow, but no torch and no HTTP.

An image is scanned first (:mod:`vlm.image.scan`), and Pillow gets nothing of the file but its pixels: it parses no
metadata. Every failure is an :class:`~vlm.errors.InvalidImage` with a message of our own, because the text of a
decoder's exception must not reach a client.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from vlm.errors import InvalidImage
from vlm.image.limits import ImageLimits
from vlm.image.scan import FORMATS, ImageScan, essential, jpeg, png, scan, upright_size
from vlm.image.scan.facts import damaged

__all__ = ["FORMATS", "ImageLimits", "decode", "upright_size"]

# What Pillow's decoders raise on hostile bytes, found by flipping bytes of valid files.
_DECODER_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    SyntaxError,
    LookupError,
    ArithmeticError,
    MemoryError,
    AssertionError,
    struct.error,
    zlib.error,
)

# By EXIF orientation. Not by ImageOps.exif_transpose, which reads metadata that Pillow does not get to see.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_WHITE = (255, 255, 255)
# Put behind the pixels of a JPEG that may lack some: where they are missing, these are taken for them.
_OTHER_ENDING = b"\xaa" * 64
# A JPEG's missing pixels are of this grey; Pillow gives the negative of inks.
_MISSING = (127, 128)
_STRIP = 32  # rows that are compared at a time, so that little is copied


def decode(data: bytes, limits: ImageLimits = ImageLimits()) -> Image.Image:
    """Decode the first frame as RGB, on white where it is transparent, and turned upright by its EXIF orientation.

    Raises:
        InvalidImage: As for :func:`vlm.image.scan.scan`, or the pixels cannot be read, or they end early.
    """
    found = scan(data, limits)
    file = essential(data, limits)
    try:
        image = _opened(file, found)
        _require_all_rows(image, file, found, limits)
        image = _as_rgb(image, found)  # the same name, so that the first image is gone when the second is turned
        return _upright(image, found.orientation)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # with limits above Pillow's own
        raise InvalidImage("The image has more pixels than can be decoded.", code="image_too_large") from error
    except _DECODER_ERRORS as error:
        raise damaged() from error


def _opened(file: bytes, found: ImageScan) -> Image.Image:
    """The image with its pixels."""
    image = Image.open(io.BytesIO(file), formats=(found.format,))
    if image.size != (found.width, found.height):  # the limits were checked on the other one
        raise damaged()
    image.load()
    return image


def _require_all_rows(image: Image.Image, file: bytes, found: ImageScan, limits: ImageLimits) -> None:
    """Refuse an image whose pixels end early, where Pillow fills it up without a word."""
    if found.format == "PNG" and _may_lack_rows(image, found):
        there = png.has_all_rows(file, limits)
    elif found.format == "JPEG" and not found.complete:
        there = jpeg.has_all_scans(file, limits) and _ends_alike(image, file, found)
    elif found.format == "JPEG" and _ends_in_grey(image):
        there = _ends_alike(image, file, found)
    else:
        return
    if not there:
        raise damaged()


def _may_lack_rows(image: Image.Image, found: ImageScan) -> bool:
    """Rows that are not there are zero, so that most images show by their last one that they are whole."""
    last = image.crop((0, image.height - 1, image.width, image.height))
    return found.interlaced or last.getbbox(alpha_only=False) is None


def _ends_in_grey(image: Image.Image) -> bool:
    corner = image.getpixel((image.width - 1, image.height - 1))
    return all(value in _MISSING for value in (corner if isinstance(corner, tuple) else (corner,)))


def _ends_alike(image: Image.Image, file: bytes, found: ImageScan) -> bool:
    """Whether a JPEG's pixels stay the same when something else follows them."""
    other = _opened(file[:-2] + _OTHER_ENDING + file[-2:], found)
    return _checksum(image) == _checksum(other)


def _checksum(image: Image.Image) -> int:
    value = 0
    for top in range(0, image.height, _STRIP):
        strip = image.crop((0, top, image.width, min(top + _STRIP, image.height)))
        value = zlib.crc32(strip.tobytes(), value)
    return value


def _as_rgb(image: Image.Image, found: ImageScan) -> Image.Image:
    if image.mode == "I;16":
        return _from_16_bits(image)
    if "transparency" in image.info:
        image.info["transparency"] = _scaled(image.info["transparency"], found)
    if image.has_transparency_data:
        return _on_white(image if image.mode == "RGBA" else image.convert("RGBA"), found)
    if image.mode == "RGB" and found.format != "WEBP":  # which would keep its decoder with two canvases
        return image
    return image.convert("RGB")


def _scaled(key: object, found: ImageScan) -> object:
    """The transparent colour of a PNG in the 8 bits to which Pillow scales the samples; an index is left alone."""
    if isinstance(key, tuple) and found.bits == 16:
        return tuple(value >> 8 for value in key)
    if isinstance(key, int) and found.bits in (2, 4) and not found.palette:
        return key * 255 // ((1 << found.bits) - 1)
    return key


def _on_white(image: Image.Image, found: ImageScan) -> Image.Image:
    """An RGBA image on white. A BMP whose alpha is zero everywhere has no alpha: the bytes are there for alignment."""
    alpha = image.getchannel("A")
    darkest, lightest = alpha.getextrema()
    if darkest == 255 or (found.format == "BMP" and lightest == 0):
        return image.convert("RGB")
    canvas = Image.new("RGB", image.size, _WHITE)
    canvas.paste(image, mask=alpha)
    return canvas


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, scaled to 8, where Pillow would clip it."""
    grey = image.point(lambda value: value / 257).convert("RGB")
    key = image.info.get("transparency")
    if key is not None:
        grey.paste(_WHITE, mask=Image.fromarray(np.asarray(image) == key))
    return grey


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)
