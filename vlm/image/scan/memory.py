"""How much memory an image takes until it is resized, from its scan.

Measured with Pillow 13 on images of 12 megapixels of every kind; each term below is a buffer that is held at the time.
"""

from __future__ import annotations

from vlm.image.scan.facts import ImageScan

_RGB = 4  # bytes of a pixel of Pillow's RGB and RGBA images, and also of its grey ones with alpha
# libwebp's animation decoder, which Pillow uses for all WebP images, holds two canvases and the decoder's own planes;
# Pillow copies the result twice.
_WEBP = 18
# No model's preprocessing makes an image that is wider; resizing holds all rows at the new width.
_MAX_RESIZED_WIDTH = 3304
# Copies of the file: without its metadata, and in the buffers of Pillow and of its decoders.
_FILES = {"BMP": 0, "WEBP": 4}
_OTHER_FILES = 3
# The decoder's state and rows, and the resized image itself.
_FIXED = 6 * 1024 * 1024


def decoded_bytes(scan: ImageScan) -> int:
    """An upper estimate of the bytes that decoding, conversion to RGB, rotation and resizing hold at their peak."""
    area = scan.width * scan.height
    peak = max(_decoding(scan, area), area * _conversion(scan), area * _rotation(scan), _resizing(scan, area))
    return peak + _FILES.get(scan.format, _OTHER_FILES) * scan.file_bytes + _FIXED


def _stored(scan: ImageScan) -> int:
    """Bytes of a pixel as Pillow holds what it has decoded."""
    return scan.bits // 8 or 1 if scan.channels == 1 else _RGB


def _decoding(scan: ImageScan, area: int) -> int:
    if scan.format == "WEBP":
        return _WEBP * area
    # A JPEG that may lack pixels is decoded twice, with different bytes behind them, and compared.
    copies = 2 if scan.format == "JPEG" else 1
    return copies * _stored(scan) * area + scan.held_bytes


def _conversion(scan: ImageScan) -> int:
    """Bytes of a pixel while the colours become RGB."""
    if scan.format == "WEBP":
        return _WEBP
    if scan.has_alpha:  # RGBA, the white canvas, and alpha by itself
        return _stored(scan) + _RGB + _RGB + 1
    if scan.channels == 3:
        return _stored(scan)
    return _stored(scan) + _RGB + (2 if scan.bits == 16 else 0)


def _rotation(scan: ImageScan) -> int:
    return 0 if scan.orientation == 1 else 2 * _RGB


def _resizing(scan: ImageScan, area: int) -> int:
    width, height = scan.size
    return _RGB * (area + min(width, _MAX_RESIZED_WIDTH) * height)
