"""BMP: a header that says everything, and the pixels at an offset that it names."""

from __future__ import annotations

import struct
from typing import NamedTuple

from vlm.image.limits import ImageLimits
from vlm.image.scan.facts import ImageScan, not_an_image, unsupported

_OLD_HEADER = 12
_HEADERS = (40, 52, 56, 64, 108, 124)
_RAW, _RLE8, _RLE4, _BITFIELDS = 0, 1, 2, 3
# Pillow unpacks run lengths in Python, pixel by pixel: this many pixels take about a second.
MAX_RLE_PIXELS = 2_000_000


class _Header(NamedTuple):
    width: int
    height: int
    bits: int
    compression: int
    alpha: bool


def scan(data: bytes, limits: ImageLimits) -> ImageScan:  # noqa: ARG001  like the other formats
    """See :func:`vlm.image.scan.scan`."""
    header = _header(data)
    if header.bits not in (1, 4, 8, 16, 24, 32) or header.compression > _BITFIELDS:
        raise unsupported("This kind of BMP", "save it with 24 bits and without compression, or as a PNG")
    packed = header.compression in (_RLE8, _RLE4)
    if packed and max(header.width * header.height, len(data)) > MAX_RLE_PIXELS:
        raise unsupported("A large BMP with run-length compression", "save it without compression, or as a PNG")
    return ImageScan(
        format="BMP",
        width=header.width,
        height=header.height,
        channels=4 if header.alpha else 1 if header.bits <= 8 else 3,
        bits=min(header.bits, 8),
        palette=header.bits <= 8,
        has_alpha=header.alpha,
        parts=1,
        file_bytes=len(data),
    )


def essential(data: bytes, limits: ImageLimits) -> bytes:  # noqa: ARG001  like the other formats
    """The file itself, which has no parts to leave out."""
    return data


def _header(data: bytes) -> _Header:
    length = int.from_bytes(data[14:18], "little")
    if length == _OLD_HEADER and len(data) >= 26:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        return _Header(width, height, bits, _RAW, alpha=False)
    if length not in _HEADERS or len(data) < 14 + length:
        raise not_an_image()
    width, height, _, bits, compression = struct.unpack_from("<IIHHI", data, 18)
    if height >= 0xFF000000:  # negative: rows from top to bottom
        height = 2**32 - height
    return _Header(width, height, bits, compression, _has_alpha(data, length, bits, compression))


def _has_alpha(data: bytes, length: int, bits: int, compression: int) -> bool:
    """Whether pixels of 32 bits have a mask for alpha, or no masks at all, which Pillow takes for alpha in the last."""
    if compression != _BITFIELDS or bits != 32:
        return False
    masks = struct.unpack_from("<4I" if length >= 56 else "<3I", data.ljust(70, b"\0"), 54)
    return not any(masks) or (len(masks) == 4 and masks[3] != 0)
