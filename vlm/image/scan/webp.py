"""WebP: a RIFF file of chunks. Either one chunk of pixels, or a header for pixels, alpha, frames and metadata."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from vlm.image.limits import ImageLimits
from vlm.image.scan.exif import Orientation, in_exif, in_xmp
from vlm.image.scan.facts import ImageScan, damaged, not_an_image, too_many_parts

_LOSSY, _LOSSLESS, _EXTENDED = b"VP8 ", b"VP8L", b"VP8X"
_EXTENDED_BYTES = 10
_ANIMATED, _ALPHA = 0x02, 0x10  # flags of the extended header
_PIXELS = {_LOSSY, _LOSSLESS, b"ALPH", b"ANMF", b"ANIM", _EXTENDED}


class _Chunk(NamedTuple):
    """One chunk: its body is ``data[body:end]``."""

    kind: bytes
    body: int
    end: int


@dataclass
class _Found:
    """What has been seen of the chunks so far."""

    parts: int = 0
    frames: int = 0
    metadata: int = 0
    orientation: Orientation = field(default_factory=Orientation)


def fits(data: bytes) -> bool:
    """Whether the signature is WebP's."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def scan(data: bytes, limits: ImageLimits) -> ImageScan:
    """See :func:`vlm.image.scan.scan`."""
    width, height, alpha = _header(data)
    found = _Found()
    for chunk in _chunks(data, limits.max_chunks):
        _note(found, data, chunk)
    if not found.frames:
        raise damaged()
    return ImageScan(
        format="WEBP",
        width=width,
        height=height,
        channels=4 if alpha else 3,
        has_alpha=alpha,
        frames=found.frames,
        orientation=found.orientation.value,
        parts=found.parts,
        metadata_bytes=found.metadata,
        file_bytes=len(data),
    )


def essential(data: bytes, limits: ImageLimits) -> bytes:
    """The same image without metadata, and of an animation the first frame only."""
    kept: dict[bytes, bytes] = {}
    for chunk in _chunks(data, limits.max_chunks):
        if chunk.kind in _PIXELS and chunk.kind not in kept:
            kept[chunk.kind] = data[chunk.body : chunk.end]
    if data[12:16] == _EXTENDED:  # elsewhere it would announce another size than the one that was scanned
        flags = kept[_EXTENDED][0]
        order = (b"ANIM", b"ANMF") if flags & _ANIMATED else (b"ALPH", _LOSSY, _LOSSLESS)
        first = (_EXTENDED, bytes([flags & (_ANIMATED | _ALPHA)]) + kept[_EXTENDED][1:])
        chunks = [first, *((kind, kept[kind]) for kind in order if kind in kept)]
    else:
        chunks = [(data[12:16], kept[data[12:16]])]
    body = b"WEBP" + b"".join(part for kind, content in chunks for part in _chunk(kind, content))
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _header(data: bytes) -> tuple[int, int, bool]:
    """Width, height, and whether there is alpha."""
    kind = data[12:16]
    if kind == _LOSSY and data[23:26] == b"\x9d\x01\x2a" and len(data) >= 30:
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF, False
    if kind == _LOSSLESS and data[20:21] == b"\x2f" and len(data) >= 25:
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    if kind == _EXTENDED and len(data) >= 30 and int.from_bytes(data[16:20], "little") >= _EXTENDED_BYTES:
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return width, height, bool(data[20] & _ALPHA)
    raise not_an_image()


def _chunks(data: bytes, limit: int) -> Iterator[_Chunk]:
    """The chunks that are there as a whole."""
    at, size = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    for _ in range(limit):
        if at + 8 > size:
            return
        kind, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > size:
            return
        yield _Chunk(kind, at + 8, at + 8 + length)
        at += 8 + length + length % 2
    raise too_many_parts(limit)


def _note(found: _Found, data: bytes, chunk: _Chunk) -> None:
    found.parts += 1
    if chunk.kind in (b"ANMF", _LOSSY, _LOSSLESS):
        found.frames += 1
    elif chunk.kind not in _PIXELS:
        found.metadata += chunk.end - chunk.body + 8
        if chunk.kind == b"EXIF":
            found.orientation.note("exif", in_exif, data[chunk.body : chunk.end])
        elif chunk.kind == b"XMP ":
            found.orientation.note("xmp", in_xmp, data[chunk.body : chunk.end])


def _chunk(kind: bytes, body: bytes) -> tuple[bytes, ...]:
    return kind, struct.pack("<I", len(body)), body, bytes(len(body) % 2)
