"""GIF: a header, then extensions and frames, whose contents are in blocks of up to 255 bytes."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from vlm.image.limits import ImageLimits
from vlm.image.scan.facts import ImageScan, damaged, not_an_image, too_many_parts

SIGNATURES = (b"GIF87a", b"GIF89a")

_EXTENSION, _FRAME = 0x21, 0x2C
_CONTROL = 0xF9  # the label of the extension with a frame's transparent colour
_NEXT = re.compile(b"[!,;]")


@dataclass
class _Frame:
    """The first frame: where it is, how far it reaches, and the index of its transparent colour."""

    start: int
    end: int
    right: int
    bottom: int
    interlaced: bool
    transparent: int | None


class _OutOfParts(Exception):
    pass


def scan(data: bytes, limits: ImageLimits) -> ImageScan:
    """See :func:`vlm.image.scan.scan`."""
    walk = _Walk(data, limits.max_blocks)
    frame = walk.first_frame()
    width, height = struct.unpack_from("<HH", data, 6)
    metadata = walk.metadata
    frames = 1 + walk.count_frames()
    return ImageScan(
        format="GIF",
        width=max(width, frame.right),  # a frame that is larger than the canvas widens it
        height=max(height, frame.bottom),
        channels=1,
        palette=True,
        has_alpha=frame.transparent is not None,
        interlaced=frame.interlaced,
        frames=frames,
        parts=walk.parts,
        metadata_bytes=metadata,
        file_bytes=len(data),
    )


def essential(data: bytes, limits: ImageLimits) -> bytes:
    """The first frame, with the colours of the file and its own."""
    frame = _Walk(data, limits.max_blocks).first_frame()
    control = b"" if frame.transparent is None else bytes([0x21, _CONTROL, 4, 1, 0, 0, frame.transparent, 0])
    return b"".join([data[: _after_colours(data)], control, data[frame.start : frame.end], b";"])


def _after_colours(data: bytes) -> int:
    """Where the header and the table of colours behind it end."""
    return 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)


class _Walk:
    """One pass over a file, bounded in the blocks that it visits."""

    def __init__(self, data: bytes, limit: int) -> None:
        if len(data) < 13:
            raise not_an_image()
        self._data = data
        self._limit = limit
        self._at = _after_colours(data)
        self.parts = 0
        self.metadata = 0

    def first_frame(self) -> _Frame:
        """Go to the end of the first frame.

        Raises:
            InvalidImage: There is none, or the blocks before its end are too many.
        """
        transparent = None
        try:
            while (kind := self._next()) is not None:
                if kind == _FRAME:
                    return self._frame(transparent)
                transparent = self._extension(transparent)
        except _OutOfParts as error:
            raise too_many_parts(self._limit) from error
        raise damaged()

    def count_frames(self) -> int:
        """The number of frames from here on, as far as the limit allows to count them."""
        count = 0
        try:
            while (kind := self._next()) is not None:
                if kind == _FRAME:
                    self._frame(None)
                    count += 1
                else:
                    self._extension(None)
        except (_OutOfParts, struct.error, IndexError):
            return count
        return count

    def _next(self) -> int | None:
        """What comes next, or None at the end; bytes that mean nothing are skipped."""
        found = _NEXT.search(self._data, self._at)
        if found is None or found[0] == b";":
            return None
        self._at = found.start()
        return self._data[self._at]

    def _extension(self, transparent: int | None) -> int | None:
        """Skip an extension; the transparent colour that it sets, or else the one from before."""
        start = self._at
        content = self._data[start + 1 : start + 8]
        self._at += 2
        self._skip_blocks()
        self.metadata += self._at - start
        sets_colour = len(content) >= 6 and content[0] == _CONTROL and content[1] >= 4 and content[2] & 1
        return content[5] if sets_colour else transparent

    def _frame(self, transparent: int | None) -> _Frame:
        data, start = self._data, self._at
        if start + 11 > len(data):
            raise damaged()
        left, top, width, height, flags = struct.unpack_from("<HHHHB", data, start + 1)
        self._at += 10 + (3 << (flags & 7) + 1 if flags & 0x80 else 0) + 1
        self._skip_blocks()
        end = min(self._at, len(data))
        return _Frame(start, end, left + width, top + height, bool(flags & 0x40), transparent)

    def _skip_blocks(self) -> None:
        data, at, size = self._data, self._at, len(self._data)
        for _ in range(self._limit - self.parts):
            self.parts += 1
            if at >= size:
                break
            length = data[at]
            at += 1 + length
            if not length:
                break
        else:
            raise _OutOfParts
        self._at = at
