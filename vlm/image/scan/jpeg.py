"""JPEG: markers, most of them with a segment of a length and a body, and compressed pixels behind each start of scan.

    FFD8 | FFE1 length EXIF | FFDB ... | FFC0 length size | FFDA length ... pixels | FFDA ... pixels | FFD9

Within pixels, FF is written as FF00, and FFD0 to FFD7 are restart markers. Any number of FF may stand before a marker.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from vlm.errors import InvalidImage
from vlm.image.limits import ImageLimits
from vlm.image.scan.exif import Orientation, in_exif, in_xmp
from vlm.image.scan.facts import ImageScan, damaged, not_an_image, too_many_parts, unsupported

SIGNATURE = b"\xff\xd8\xff"

_SOI, _EOI, _SOS, _DHT, _DQT, _DRI, _DAC, _TEM = 0xD8, 0xD9, 0xDA, 0xC4, 0xDB, 0xDD, 0xCC, 0x01
_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE
_BASELINE, _EXTENDED, _PROGRESSIVE, _LOSSLESS, _ARITHMETIC, _PROGRESSIVE_ARITHMETIC = 0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA
_READABLE = {_BASELINE, _EXTENDED, _PROGRESSIVE, _LOSSLESS, _ARITHMETIC, _PROGRESSIVE_ARITHMETIC}
_FRAMES = set(range(0xC0, 0xD0)) - {_DHT, 0xC8, _DAC}
_METADATA = {*range(0xE0, 0xF0), 0xFE, 0xDC}  # APP0 to APP15, comments, and the number of lines, which no decoder reads
_NEEDED = {*_READABLE, _SOS, _DHT, _DQT, _DRI, _DAC}
_KNOWN = _NEEDED | _FRAMES | _METADATA

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")  # a marker, or a run of FF that may end in one
_ALL_COEFFICIENTS = (1 << 64) - 1
# Bytes of FF in a row within pixels. Encoders write a few to align what follows; a decoder reads a run as one.
_MAX_FILL = 4096
# Bytes of quantisation tables: a JPEG has up to 4 tables of up to 129 bytes, and Pillow reads them in Python.
_MAX_TABLES = 64 * 1024


class _Segment(NamedTuple):
    """One marker: its body is ``data[body:end]``, and the pixels behind it, if any, are ``data[end:after]``."""

    marker: int
    body: int
    end: int
    after: int


class _Component(NamedTuple):
    name: int
    across: int
    down: int


@dataclass
class _Found:
    """What has been seen of the segments so far."""

    parts: int = 0
    frame: _Segment | None = None
    size: tuple[int, int] = (0, 0)
    components: tuple[_Component, ...] = ()
    scans: int = 0
    held: bool = False
    ended: bool = False
    metadata: int = 0
    tables: int = 0
    orientation: Orientation = field(default_factory=Orientation)
    coefficients: dict[int, int] = field(default_factory=dict)


def scan(data: bytes, limits: ImageLimits) -> ImageScan:
    """See :func:`vlm.image.scan.scan`."""
    found = _Found()
    for segment in _Walk(data, limits.max_chunks).segments():
        _note(found, data, segment, limits)
    if found.frame is None:
        raise not_an_image()
    if not found.scans:
        raise damaged()
    return ImageScan(
        format="JPEG",
        width=found.size[0],
        height=found.size[1],
        channels=len(found.components),
        progressive=found.frame.marker in (_PROGRESSIVE, _PROGRESSIVE_ARITHMETIC),
        scans=found.scans,
        held_bytes=_coefficient_bytes(found) if found.held else 0,
        complete=found.ended,
        orientation=found.orientation.value,
        parts=found.parts,
        metadata_bytes=found.metadata,
        file_bytes=len(data),
    )


def essential(data: bytes, limits: ImageLimits) -> bytes:
    """The same image without metadata, with an end marker, and without what is behind it."""
    kept = [data[:2]]
    for segment in _Walk(data, limits.max_chunks).segments():
        if segment.marker in _NEEDED or _is_about_colour(data, segment):
            kept += [b"\xff", data[segment.body - 3 : segment.after]]
    return b"".join([*kept, b"\xff\xd9"])


def has_all_scans(data: bytes, limits: ImageLimits) -> bool:
    """Whether there are pixels for all that the header announces, to the last bit of each coefficient."""
    found = _Found()
    for segment in _Walk(data, limits.max_chunks).segments():
        _note(found, data, segment, limits)
    return all(found.coefficients.get(one.name) == _ALL_COEFFICIENTS for one in found.components)


class _Walk:
    """One pass over the segments of a file, bounded in the steps that it takes."""

    def __init__(self, data: bytes, limit: int) -> None:
        self._data = data
        self._limit = limit
        self._steps = 0

    def segments(self) -> Iterator[_Segment]:
        """The segments in order. Ends without :data:`_EOI` where the file is cut, or goes on with something else."""
        data, at, pixels = self._data, 2, False
        while True:
            self._step()
            _, at = self._marker(at, within=False)
            if at + 4 > len(data) or data[at + 1] == _EOI:
                if data[at + 1 : at + 2] == b"\xd9":
                    yield _Segment(_EOI, at + 2, at + 2, at + 2)
                return
            marker = data[at + 1]
            if marker == _TEM:
                at += 2
                continue
            if marker not in _KNOWN:
                if pixels:
                    return
                raise damaged()
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
            if end > len(data) or end < at + 4:
                return
            after = self._marker(end, within=True)[0] if marker == _SOS else end
            yield _Segment(marker, at + 4, end, after)
            pixels |= marker == _SOS
            at = after

    def _marker(self, at: int, *, within: bool) -> tuple[int, int]:
        """Where the fill bytes before the next marker begin, and where its own FF is; twice the end if there is none.

        Args:
            at: Where to begin.
            within: Whether these are pixels, in which a long run of FF is refused; elsewhere it is skipped.
        """
        data = self._data
        if at + 1 < len(data) and data[at] == 0xFF and data[at + 1] in _KNOWN:  # as between most segments
            return at, at
        while found := _MARKER.search(data, at):
            start = found.start()
            if data[start + 1] != 0xFF:
                return start, start
            self._step()
            last = _end_of_fill(data, start) - 1
            if within and last - start > _MAX_FILL:
                raise damaged()
            if last + 1 == len(data):
                return start, len(data)
            if data[last + 1] and not 0xD0 <= data[last + 1] <= 0xD7:
                return start, last
            at = last + 2
        end = len(data) - data.endswith(b"\xff")
        return end, len(data)

    def _step(self) -> None:
        self._steps += 1
        if self._steps > self._limit:
            raise too_many_parts(self._limit)


def _end_of_fill(data: bytes, at: int) -> int:
    """The first byte from ``at`` on that is not FF; looks at pieces that grow, so that short runs copy little."""
    size = 64
    while piece := data[at : at + size]:
        left = len(piece.lstrip(b"\xff"))
        at += len(piece) - left
        if left:
            break
        size = min(4 * size, 1 << 20)
    return at


def _note(found: _Found, data: bytes, segment: _Segment, limits: ImageLimits) -> None:
    found.parts += 1
    if segment.marker in _FRAMES:
        _note_frame(found, data, segment)
    elif segment.marker == _SOS:
        _note_scan(found, data, segment, limits)
    elif segment.marker == _EOI:
        found.ended = True
    elif segment.marker == _DQT:
        found.tables += segment.end - segment.body
        if found.tables > _MAX_TABLES:
            raise damaged()
    elif segment.marker in _METADATA:
        found.metadata += segment.end - segment.body + 4
        _note_orientation(found, data, segment)


def _note_frame(found: _Found, data: bytes, segment: _Segment) -> None:
    if segment.marker not in _READABLE:
        raise unsupported("This kind of JPEG", "save it as a baseline or progressive one")
    if found.frame is not None or segment.end - segment.body < 6:
        raise damaged()
    bits, height, width, count = struct.unpack_from(">BHHB", data, segment.body)
    if bits != 8:
        raise unsupported(f"A JPEG with {bits} bits per sample", "save it with 8")
    if count not in (1, 3, 4) or segment.end - segment.body != 6 + 3 * count:
        raise damaged()
    found.frame, found.size = segment, (width, height)
    found.components = tuple(_component(data, segment.body + 6 + 3 * index) for index in range(count))


def _component(data: bytes, at: int) -> _Component:
    across, down = data[at + 1] >> 4, data[at + 1] & 15
    if not (1 <= across <= 4 and 1 <= down <= 4):
        raise damaged()
    return _Component(data[at], across, down)


def _note_scan(found: _Found, data: bytes, segment: _Segment, limits: ImageLimits) -> None:
    count = data[segment.body] if segment.end > segment.body else 0
    if found.frame is None or segment.end - segment.body != 4 + 2 * count:
        raise damaged()
    found.scans += 1
    if found.scans > limits.max_scans:
        raise _too_many_scans(limits)
    found.held |= count < len(found.components) or found.frame.marker in (_PROGRESSIVE, _PROGRESSIVE_ARITHMETIC)
    bits = _final_bits(found.frame.marker, *data[segment.end - 3 : segment.end])
    for name in data[segment.body + 1 : segment.end - 3 : 2]:
        found.coefficients[name] = found.coefficients.get(name, 0) | bits


def _final_bits(frame: int, first: int, last: int, precision: int) -> int:
    """The coefficients, as bits of a number, of which a scan brings the lowest bit."""
    if frame not in (_PROGRESSIVE, _PROGRESSIVE_ARITHMETIC):
        return _ALL_COEFFICIENTS
    whole = first <= last < 64 and not precision & 15
    return (1 << last + 1) - (1 << first) if whole else 0


def _note_orientation(found: _Found, data: bytes, segment: _Segment) -> None:
    if segment.marker != _APP1:
        return
    if data.startswith(b"Exif\0\0", segment.body):
        found.orientation.note("exif", in_exif, data[segment.body : segment.end])
    elif data.startswith(b"http://ns.adobe.com/xap/1.0/\0", segment.body):
        found.orientation.note("xmp", in_xmp, data[segment.body : segment.end])


def _is_about_colour(data: bytes, segment: _Segment) -> bool:
    """Whether a segment says how samples become colours: JFIF's and Adobe's do, if they have their full length."""
    length = segment.end - segment.body
    return (segment.marker == _APP0 and length >= 14 and data.startswith(b"JFIF\0", segment.body)) or (
        segment.marker == _APP14 and length >= 12 and data.startswith(b"Adobe", segment.body)
    )


def _coefficient_bytes(found: _Found) -> int:
    """Two bytes for each coefficient, of all blocks of 8x8, with each component at its own resolution."""
    across = max(one.across for one in found.components)
    down = max(one.down for one in found.components)
    columns, rows = -(-found.size[0] // (8 * across)), -(-found.size[1] // (8 * down))
    return sum(columns * one.across * rows * one.down * 128 for one in found.components)


def _too_many_scans(limits: ImageLimits) -> InvalidImage:
    return InvalidImage(
        f"The JPEG has more than {limits.max_scans} scans; save it again as a baseline or progressive one.",
        code="invalid_image",
    )
