"""The orientation in an image's metadata. What cannot be read means upright.

EXIF is a TIFF file in miniature, whose directories can point anywhere. Only the first directory is read here and no
pointer is followed, so that nested, cyclic or huge metadata costs nothing.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable

_ORIENTATION = 0x0112
_SHORT, _LONG = 3, 4
# The first directory of a camera has about 20 entries, sorted by tag, and the orientation is among the first.
_MAX_ENTRIES = 512
# The orientation is near the beginning of the metadata, whose size is that of the thumbnails behind it.
_MAX_BYTES = 64 * 1024

_PREFIX = b"Exif\0\0"
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
_RAW_PROFILE = re.compile(rb"\n ?exif\n {0,16}\d{1,16}\n")
_KINDS = ("exif", "raw profile", "xmp")  # the first of them that can be read counts


class Orientation:
    """The orientation of an image, from the first block of each kind of metadata: a file may have thousands."""

    def __init__(self) -> None:
        self._by_kind: dict[str, int | None] = {}

    def note(self, kind: str, read: Callable[[bytes], int | None], block: bytes) -> None:
        """Read a block, unless there was one of its kind before."""
        if kind not in self._by_kind:
            self._by_kind[kind] = read(block)

    @property
    def value(self) -> int:
        """From 1 to 8; upright, if nothing could be read."""
        return next((found for kind in _KINDS if (found := self._by_kind.get(kind))), 1)


def in_exif(data: bytes) -> int | None:
    """The orientation from 1 to 8 in an EXIF block, with or without the prefix that JPEG puts before it."""
    block = data[:_MAX_BYTES].removeprefix(_PREFIX)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return None
    return _in_directory(block, order, *struct.unpack_from(order + "I", block, 4))


def _in_directory(block: bytes, order: str, start: int) -> int | None:
    if start + 2 > len(block):
        return None
    (count,) = struct.unpack_from(order + "H", block, start)
    there = (len(block) - start - 2) // 12
    for index in range(min(count, there, _MAX_ENTRIES)):
        tag, kind, values = struct.unpack_from(order + "HHI", block, start + 2 + 12 * index)
        if tag == _ORIENTATION:
            return _value(block, order, start + 10 + 12 * index, kind) if values == 1 else None
    return None


def _value(block: bytes, order: str, at: int, kind: int) -> int | None:
    letter = {_SHORT: "H", _LONG: "I"}.get(kind)
    if letter is None:
        return None
    (value,) = struct.unpack_from(order + letter, block, at)
    return int(value) if 1 <= value <= 8 else None


def in_xmp(data: bytes) -> int | None:
    """The orientation in XMP, which some editors write in place of EXIF."""
    found = _XMP.search(data[:_MAX_BYTES])
    return int(found[1]) if found else None


def in_raw_profile(text: bytes) -> int | None:
    """The orientation in ImageMagick's ``Raw profile type exif``: lines of hexadecimal digits behind a heading."""
    heading = _RAW_PROFILE.match(text)
    if heading is None:
        return None
    digits = b"".join(text[heading.end() : heading.end() + 2 * _MAX_BYTES].split())
    try:
        return in_exif(bytes.fromhex(digits[: len(digits) // 2 * 2].decode("ascii")))
    except ValueError:
        return None


def in_compressed_profile(data: bytes) -> int | None:
    """The orientation in the same text, compressed; only its beginning is inflated."""
    try:
        return in_raw_profile(zlib.decompressobj().decompress(data, 3 * _MAX_BYTES))
    except zlib.error:
        return None
