"""PNG: a signature, then chunks of a length, a kind, a body and a checksum."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from vlm.image.limits import ImageLimits
from vlm.image.scan.exif import Orientation, in_compressed_profile, in_exif, in_raw_profile, in_xmp
from vlm.image.scan.facts import ImageScan, damaged, not_an_image, too_many_parts

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_GREY, _COLOUR, _INDEXED, _GREY_ALPHA, _COLOUR_ALPHA = 0, 2, 3, 4, 6
_CHANNELS = {_GREY: 1, _COLOUR: 3, _INDEXED: 1, _GREY_ALPHA: 2, _COLOUR_ALPHA: 4}
_BITS = {_GREY: (1, 2, 4, 8, 16), _INDEXED: (1, 2, 4, 8)}
# What decoding needs, and the frames of an animation, which are not metadata either.
_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"fcTL", b"fdAT"}
# First column, first row, and distances between columns and rows in each of the seven passes of interlacing.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# Input is inflated in pieces, so that a piece of zeros, which grows a thousandfold, stays at a few megabytes.
_PIECE = 4096


class _Chunk(NamedTuple):
    """One chunk: its body is ``data[body:end]``, where ``end`` is also where the file may end early."""

    kind: bytes
    body: int
    end: int


class _Header(NamedTuple):
    width: int
    height: int
    bits: int
    colour: int
    interlaced: bool


@dataclass
class _Found:
    """What has been seen of the chunks so far."""

    parts: int = 0
    colours: bool = False
    pixels: bool = False
    ended: bool = False
    alpha: bool = False
    frames: int = 1
    metadata: int = 0
    orientation: Orientation = field(default_factory=Orientation)


def scan(data: bytes, limits: ImageLimits) -> ImageScan:
    """See :func:`vlm.image.scan.scan`."""
    header = _header(data)
    found = _Found()
    for chunk in _chunks(data, limits.max_chunks):
        _note(found, header, data, chunk)
    if not found.pixels:
        raise damaged()
    return ImageScan(
        format="PNG",
        width=header.width,
        height=header.height,
        channels=_CHANNELS[header.colour],
        bits=header.bits,
        palette=header.colour == _INDEXED,
        has_alpha=found.alpha or header.colour in (_GREY_ALPHA, _COLOUR_ALPHA),
        interlaced=header.interlaced,
        complete=found.ended,
        frames=min(found.frames, limits.max_chunks),
        orientation=found.orientation.value,
        parts=found.parts,
        metadata_bytes=found.metadata,
        file_bytes=len(data),
    )


def essential(data: bytes, limits: ImageLimits) -> bytes:
    """The same image without the chunks that decoding does not need, and with its pixels in one chunk."""
    header = _header(data)
    palette, transparency, pixels = b"", b"", []
    for chunk in _chunks(data, limits.max_chunks):
        if chunk.kind == b"IDAT":
            pixels.append(data[chunk.body : chunk.end])
        elif chunk.kind == b"PLTE" and header.colour == _INDEXED and not pixels:
            palette = data[chunk.body - 8 : chunk.end + 4]
        elif chunk.kind == b"tRNS" and not pixels and _is_transparency(header, data, chunk):
            transparency = data[chunk.body - 8 : chunk.end + 4]
    return b"".join([data[:33], palette, transparency, _chunk(b"IDAT", b"".join(pixels)), _chunk(b"IEND", b"")])


def has_all_rows(data: bytes, limits: ImageLimits) -> bool:
    """Whether the compressed pixels reach to the last row. Takes about as long as decoding the image."""
    left, inflate = _raw_size(_header(data)), zlib.decompressobj()
    for chunk in _chunks(data, limits.max_chunks):
        if chunk.kind == b"IDAT":
            for start in range(chunk.body, chunk.end, _PIECE):
                left -= len(inflate.decompress(data[start : min(start + _PIECE, chunk.end)]))
                if left <= 0 or inflate.eof:
                    return left <= 0
    return False


def _header(data: bytes) -> _Header:
    if len(data) < 33 or data[8:16] != b"\0\0\0\x0dIHDR":
        raise not_an_image()
    width, height, bits, colour, compression, filtering, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    readable = bits in _BITS.get(colour, (8, 16)) and colour in _CHANNELS
    if not readable or compression or filtering or interlace > 1 or not _is_intact(data, _Chunk(b"IHDR", 16, 29)):
        raise damaged()
    return _Header(width, height, bits, colour, interlace == 1)


def _chunks(data: bytes, limit: int) -> Iterator[_Chunk]:
    at, size = len(SIGNATURE), len(data)
    for _ in range(limit):
        if at + 8 > size:
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        yield _Chunk(kind, at + 8, min(at + 8 + length, size))
        if kind == b"IEND":
            return
        at += length + 12
    raise too_many_parts(limit)


def _note(found: _Found, header: _Header, data: bytes, chunk: _Chunk) -> None:
    found.parts += 1
    if chunk.kind == b"PLTE":
        found.colours = True
    elif chunk.kind == b"IDAT":
        if header.colour == _INDEXED and not found.colours:
            raise damaged()
        found.pixels = True
    elif chunk.kind == b"IHDR" and found.parts > 1:
        raise damaged()  # two sizes: which of them counts depends on the reader
    elif chunk.kind == b"IEND":
        found.ended = True
    elif chunk.kind == b"tRNS":
        found.alpha |= not found.pixels and _is_transparency(header, data, chunk)
    elif chunk.kind not in _PIXELS:
        found.metadata += chunk.end - chunk.body + 12
        _note_metadata(found, data, chunk)


def _note_metadata(found: _Found, data: bytes, chunk: _Chunk) -> None:
    if chunk.kind == b"acTL" and chunk.end - chunk.body >= 4:
        found.frames = max(1, int.from_bytes(data[chunk.body : chunk.body + 4]))
    elif chunk.kind == b"eXIf":
        found.orientation.note("exif", in_exif, data[chunk.body : chunk.end])
    elif chunk.kind == b"tEXt" and data.startswith(b"Raw profile type exif\0", chunk.body):
        found.orientation.note("raw profile", in_raw_profile, data[chunk.body + 22 : chunk.end])
    elif chunk.kind == b"zTXt" and data.startswith(b"Raw profile type exif\0\0", chunk.body):
        found.orientation.note("raw profile", in_compressed_profile, data[chunk.body + 23 : chunk.end])
    elif chunk.kind == b"iTXt" and data.startswith(b"XML:com.adobe.xmp\0\0\0", chunk.body):
        found.orientation.note("xmp", in_xmp, data[chunk.body + 20 : chunk.end])


def _is_transparency(header: _Header, data: bytes, chunk: _Chunk) -> bool:
    """Whether a tRNS chunk is one that can be used: as the standard advises, a broken one is as good as none."""
    least, most = {_GREY: (2, 2), _COLOUR: (6, 6), _INDEXED: (1, 256)}.get(header.colour, (1, 0))
    return least <= chunk.end - chunk.body <= most and _is_intact(data, chunk)


def _is_intact(data: bytes, chunk: _Chunk) -> bool:
    checksum = zlib.crc32(data[chunk.body - 4 : chunk.end])
    return data[chunk.end : chunk.end + 4] == checksum.to_bytes(4)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return b"".join([len(body).to_bytes(4), kind, body, zlib.crc32(body, zlib.crc32(kind)).to_bytes(4)])


def _raw_size(header: _Header) -> int:
    """Bytes of the inflated pixels: each row of each pass has a byte for its filter."""
    passes = _ADAM7 if header.interlaced else ((0, 0, 1, 1),)
    depth = header.bits * _CHANNELS[header.colour]
    total = 0
    for x, y, dx, dy in passes:
        columns, rows = -((x - header.width) // dx), -((y - header.height) // dy)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * depth + 7) // 8)
    return total
