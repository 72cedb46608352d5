"""Images that were made to do harm, and good ones with odd bytes: several hundred of them, by class, from a seed."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

from PIL import Image

from tests.images import encoded, exif_of, halves
from vlm.image.limits import ImageLimits

Files = dict[str, bytes]

PNG = b"\x89PNG\r\n\x1a\n"
EOI = b"\xff\xd9"
LIMITS = ImageLimits()


# Parts of files


def chunk(kind: bytes, body: bytes, checksum: int | None = None) -> bytes:
    """A chunk of a PNG, with its own checksum or another."""
    right = zlib.crc32(body, zlib.crc32(kind))
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", right if checksum is None else checksum)


def png_of(
    width: int, height: int, *, bits: int = 8, colour: int = 2, before: bytes = b"", rows: bytes | None = None
) -> bytes:
    """A PNG of any size and colour type; by default its first hundred bytes of pixels are there."""
    pixels = chunk(b"IDAT", zlib.compress(bytes(100) if rows is None else rows))
    return PNG + png_header(width, height, bits, colour) + before + pixels + chunk(b"IEND", b"")


def png_header(width: int, height: int, bits: int = 8, colour: int = 2) -> bytes:
    """The chunk that a PNG begins with."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))


def small_png(before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG of 16 x 16, with chunks before and behind its pixels."""
    data = png_of(16, 16, before=before, rows=bytes(49 * 16))
    return data[:-12] + after + data[-12:]


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def after_start(jpeg: bytes, *parts: bytes) -> bytes:
    """A JPEG with more behind its first marker."""
    return b"".join([jpeg[:2], *parts, jpeg[2:]])


def directory(entries: list[tuple[int, int, int, int]], order: str = "<", following: int = 0) -> bytes:
    """EXIF of one directory of (tag, type, count, value)."""
    start = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    body = b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
    return start + struct.pack(order + "H", len(entries)) + body + struct.pack(order + "I", following)


def with_exif(image_format: str, block: bytes) -> bytes:
    """A small image with these bytes as its EXIF."""
    if image_format == "PNG":
        return small_png(chunk(b"eXIf", block))
    if image_format == "JPEG":
        return after_start(encoded(halves(), "JPEG"), segment(0xE1, (b"Exif\0\0" + block)[:65533]))
    return encoded(halves(), "WEBP", exif=block)


@cache
def photo(width: int = 160, height: int = 120) -> Image.Image:
    """An image with edges, gradients and noise, so that every byte of its file matters."""
    rng = random.Random(7)
    noise = Image.frombytes("RGB", (width // 8, height // 8), rng.randbytes(width // 8 * (height // 8) * 3))
    image = noise.resize((width, height), Image.Resampling.BICUBIC)
    image.paste(halves(), (8, 8))
    return image


@cache
def good() -> Files:
    """A small file of every format in its variants, all of which are read."""
    image = photo(64, 48)
    sixteen = image.convert("L").convert("I").point(lambda value: value * 257).convert("I;16")
    coloured = image.convert("P")
    clear = image.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(image.size))
    others = [image.rotate(90 * turn) for turn in (1, 2)]
    variants: list[tuple[str, Image.Image, str, dict[str, Any]]] = [
        ("png", image, "PNG", {"exif": exif_of(6), "icc_profile": bytes(200)}),
        ("png-palette", coloured, "PNG", {"transparency": b"\0\x80\xff"}),
        ("png-index", coloured, "PNG", {"transparency": 3}),
        ("png-grey", image.convert("L"), "PNG", {"transparency": 9}),
        ("png-key", image, "PNG", {"transparency": (1, 2, 3)}),
        ("png-16", sixteen, "PNG", {}),
        ("png-1", image.convert("1"), "PNG", {}),
        ("png-alpha", clear, "PNG", {}),
        ("png-grey-alpha", clear.convert("LA"), "PNG", {}),
        ("apng", image, "PNG", {"save_all": True, "append_images": others}),
        ("jpeg", image, "JPEG", {"exif": exif_of(8), "comment": b"words"}),
        ("jpeg-444", image, "JPEG", {"subsampling": 0, "quality": 95}),
        ("jpeg-422", image, "JPEG", {"subsampling": 1, "optimize": True}),
        ("jpeg-progressive", image, "JPEG", {"progressive": True}),
        ("jpeg-grey", image.convert("L"), "JPEG", {}),
        ("jpeg-grey-progressive", image.convert("L"), "JPEG", {"progressive": True}),
        ("jpeg-cmyk", image.convert("CMYK"), "JPEG", {}),
        ("jpeg-restarts", image, "JPEG", {"restart_marker_blocks": 2}),
        ("mpo", image, "MPO", {"save_all": True, "append_images": others}),
        ("webp", image, "WEBP", {"exif": exif_of(3)}),
        ("webp-lossless", image, "WEBP", {"lossless": True}),
        ("webp-alpha", clear, "WEBP", {"xmp": b"<x/>"}),
        ("webp-animation", image, "WEBP", {"save_all": True, "append_images": others}),
        ("gif", coloured, "GIF", {"comment": b"words"}),
        ("gif-grey", image.convert("L"), "GIF", {}),
        ("gif-transparent", coloured, "GIF", {"transparency": coloured.getpixel((0, 0))}),
        ("gif-animation", coloured, "GIF", {"save_all": True, "append_images": others, "disposal": 2}),
        ("bmp", image, "BMP", {}),
        ("bmp-palette", coloured, "BMP", {}),
        ("bmp-1", image.convert("1"), "BMP", {}),
        ("bmp-alpha", clear, "BMP", {}),
    ]
    files = {name: encoded(picture, image_format, **settings) for name, picture, image_format, settings in variants}
    return files | {"bmp-rle": packed_bmp(), "jpeg-arithmetic": arithmetic_jpeg()}


def packed_bmp(width: int = 40, height: int = 30) -> bytes:
    """A BMP with run-length compression: rows of one colour each."""
    runs = [min(255, width - at) for at in range(0, width, 255)]
    rows = (
        b"".join(bytes([*(byte for run in runs for byte in (run, row % 4)), 0, 0]) for row in range(height)) + b"\0\1"
    )
    colours = b"".join(bytes([value, 255 - value, 90, 0]) for value in range(0, 256, 64))
    offset = 14 + 40 + len(colours)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 0, 0, 4, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + header + colours + rows


def arithmetic_jpeg() -> bytes:
    """A grey JPEG with arithmetic coding, whose pixels are all in the state in which the coder begins."""
    tables = segment(0xDB, b"\0" + bytes([16] * 64))
    frame = segment(0xC9, struct.pack(">BHHB", 8, 8, 8, 1) + b"\1\x11\0")
    return b"\xff\xd8" + tables + frame + segment(0xDA, b"\1\1\0\0\x3f\0") + bytes(4) + EOI


# The classes


def bombs() -> Files:
    """Small files that claim to be large, and those that become large."""
    files = {
        f"png-{width}x{height}-{bits}-{colour}": png_of(width, height, bits=bits, colour=colour)
        for width, height in ((1, 40_000_000), (40_000_000, 1), (7000, 7000), (60_000, 60_000), (2**31 - 1, 2**31 - 1))
        for bits, colour in ((1, 0), (8, 2), (16, 6))
    }
    jpeg = good()["jpeg"]
    size = jpeg.index(b"\xff\xc0") + 5
    files["jpeg"] = jpeg[:size] + b"\xff\xff\xff\xff" + jpeg[size + 4 :]
    files["gif"] = good()["gif"][:6] + b"\xff\xff\xff\xff" + good()["gif"][10:]
    files["bmp"] = good()["bmp"][:18] + struct.pack("<ii", 30_000, -30_000) + good()["bmp"][26:]
    files["bmp-negative"] = good()["bmp"][:18] + struct.pack("<ii", -8, 8) + good()["bmp"][26:]
    webp = good()["webp-alpha"]
    files["webp"] = webp[:24] + b"\xff" * 6 + webp[30:]
    frame = good()["gif"].index(b",")
    files["gif-frame"] = good()["gif"][: frame + 1] + b"\xff" * 8 + good()["gif"][frame + 9 :]
    files["png-pixels"] = png_of(16, 16, rows=bytes(40_000_000))
    big = zlib.compress(bytes(20_000_000))
    files["png-profile"] = small_png(chunk(b"iCCP", b"a\0\0" + big))
    files["png-text"] = small_png(chunk(b"zTXt", b"Raw profile type exif\0\0" + big))
    files["png-texts"] = small_png(chunk(b"zTXt", b"a\0\0" + big) * 90)
    files["png-international"] = small_png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + big))
    return files


def scans() -> Files:
    """A progressive JPEG whose last scan is repeated."""
    jpeg = good()["jpeg-progressive"]
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return {f"{count}": jpeg[:-2] + last * count + EOI for count in (1, 21, 22, 23, 24, 100, 5000)}


def frames() -> Files:
    """Animations with more frames than anyone watches, and with frames that are wrong."""
    gif = good()["gif"]
    start = gif.index(b",")
    webp = good()["webp-animation"]
    first = webp.index(b"ANMF")
    frame = webp[first : first + 8 + int.from_bytes(webp[first + 4 : first + 8], "little")]
    body = webp[8:first] + frame * 3000
    apng = good()["apng"]
    return {
        "gif": gif[:-1] + gif[start:-1] * 60 + b";",
        "gif-empty": gif[:-1] + b",\0\0\0\0\1\0\1\0\0\2\0" * 60_000 + b";",
        "webp": b"RIFF" + struct.pack("<I", len(body)) + body,
        "apng-count": apng.replace(b"acTL" + apng[apng.index(b"acTL") + 4 :][:4], b"acTL\xff\xff\xff\xff"),
        "apng-order": apng.replace(b"fcTL\0\0\0\1", b"fcTL\0\0\0\7"),
        "apng-without-pixels": PNG + apng[8 : apng.index(b"IDAT") - 4] + apng[apng.index(b"fdAT") - 4 :],
        "gif-without-frame": gif[:start] + b";",
    }


def parts() -> Files:
    """Files in more pieces, or with more metadata, than any encoder makes."""
    jpeg, gif, webp = (good()[name] for name in ("jpeg", "gif", "webp"))
    start = gif.index(b",")
    pieces = LIMITS.max_blocks + 1
    riff = webp[8:] + b"junk\0\0\0\0" * pieces
    return {
        "png": small_png(chunk(b"prIv", b"") * pieces),
        "png-behind": small_png(b"", chunk(b"prIv", b"") * pieces),
        "png-pixels": small_png(b"", chunk(b"IDAT", b"") * 500),
        "png-large": small_png(chunk(b"iCCP", bytes(2_000_000)) + chunk(b"iTXt", bytes(2_000_000))),
        "jpeg": after_start(jpeg, b"\xff\xfe\0\2" * pieces),
        "jpeg-large": after_start(jpeg, segment(0xE2, bytes(65_533)) * 60),
        "jpeg-fill": after_start(jpeg, b"\xff" * 3_000_000),
        "jpeg-fill-in-pixels": jpeg[:-2] + b"\xff" * 3_000_000 + EOI,
        "jpeg-stuffed": jpeg[:-2] + b"\xff\0" * 1_000_000 + EOI,
        "jpeg-runs": jpeg[:-2] + b"\xff\xff\0" * pieces + EOI,
        "jpeg-restarts": jpeg[:-2] + b"\xff\xd0" * 1_000_000 + EOI,
        "jpeg-tables": after_start(jpeg, segment(0xDB, (b"\0" + bytes([1] * 64)) * 1000) * 3),
        "jpeg-junk": after_start(jpeg, bytes(3_000_000)),
        "gif": gif[:start] + b"!\xfe" + b"\1a" * pieces + b"\0" + gif[start:],
        "gif-extensions": gif[:start] + b"!\xf9\4\1\0\0\5\0" * 40_000 + gif[start:],
        "gif-junk": gif[:start] + bytes(3_000_000) + gif[start:],
        "webp": b"RIFF" + struct.pack("<I", len(riff)) + riff,
    }


def metadata() -> Files:
    """EXIF that points to itself, beyond its end or nowhere, and other metadata that is broken."""
    blocks: Files = {}
    for order in "<>":
        for orientation in (0, 1, 6, 8, 9, 65_535):
            value = orientation if order == "<" else orientation << 16
            blocks[f"orientation-{order}-{orientation}"] = directory([(0x0112, 3, 1, value)], order)
        blocks[f"cycle-{order}"] = directory([(0x8769, 4, 1, 8), (0x0112, 3, 1, 6)], order, following=8)
        blocks[f"deep-{order}"] = directory([(0x8769, 4, 1, 26), (0x8825, 4, 1, 8)], order, following=26)
        blocks[f"beyond-{order}"] = directory([(0x8769, 4, 1, 2**32 - 1)], order, following=2**32 - 1)
        blocks[f"many-{order}"] = directory([(0x010F, 2, 2**31, 8)] * 5000, order)
        blocks[f"typed-{order}"] = directory([(0x0112, 2, 4, 0), (0x0112, 99, 1, 6)], order)
        blocks[f"cut-{order}"] = directory([(0x0112, 3, 1, 6)], order)[:-9]
    blocks["offset"] = b"II*\0\xff\xff\xff\xff"
    blocks["empty"] = b""
    blocks["words"] = b"no EXIF at all"
    files = {
        f"{image_format.lower()}-{name}": with_exif(image_format, block)
        for name, block in blocks.items()
        for image_format in ("PNG", "JPEG", "WEBP")
    }
    broken = {kind: chunk(kind, b"abc", 0) for kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"gAMA", b"pHYs")}
    files |= {f"png-{kind.decode()}": small_png(body) for kind, body in broken.items()}
    files |= {f"png-{kind.decode()}-behind": small_png(b"", body) for kind, body in broken.items()}
    files["png-transparency"] = small_png(chunk(b"tRNS", bytes(6), 0))
    files["png-short-transparency"] = small_png(chunk(b"tRNS", b"\0"))
    return files


def sides() -> Files:
    """One row or one column at the limit and beyond, and nothing at all."""
    most = LIMITS.max_side
    files: Files = {}
    for image_format in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        for length in (most - 1, most, most + 1):
            if image_format == "WEBP" and length >= most:
                continue
            files[f"{image_format}-{length}x1"] = encoded(Image.new("L", (length, 1)).convert("RGB"), image_format)
            files[f"{image_format}-1x{length}"] = encoded(Image.new("L", (1, length)).convert("RGB"), image_format)
    for width, height in ((0, 0), (0, 9), (9, 0)):
        files[f"png-{width}x{height}"] = png_of(width, height)
        files[f"gif-{width}x{height}"] = good()["gif"][:6] + struct.pack("<HH", width, height) + good()["gif"][10:]
        files[f"bmp-{width}x{height}"] = good()["bmp"][:18] + struct.pack("<II", width, height) + good()["bmp"][26:]
        files[f"jpeg-{width}x{height}"] = resized_jpeg(good()["jpeg"], width, height)
    return files


def resized_jpeg(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header claims another size."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def truncations() -> Files:
    """Files of some kilobytes, cut at every kilobyte, and small ones cut near their end."""
    large: list[tuple[str, str, dict[str, Any]]] = [
        ("png", "PNG", {}), ("jpeg", "JPEG", {"quality": 95}), ("progressive", "JPEG", {"progressive": True}),
        ("webp", "WEBP", {"quality": 95}), ("lossless", "WEBP", {"lossless": True}), ("gif", "GIF", {}),
    ]  # fmt: skip
    files: Files = {}
    for name, image_format, settings in large:
        data = encoded(photo(), image_format, **settings)
        files |= {f"{name}-{at}": data[:at] for at in range(1024, len(data), 1024)}
    bmp = encoded(photo(64, 48), "BMP")
    files |= {f"bmp-{at}": bmp[:at] for at in range(1024, len(bmp), 1024)}
    for name, data in good().items():
        files |= {f"{name}-without-{cut}": data[:-cut] for cut in (1, 2, 3, 12)}
    return files


def flips(seed: int = 0) -> Files:
    """Good files with a few wrong bits."""
    rng = random.Random(seed)
    files: Files = {}
    for name, data in good().items():
        for number in range(12):
            broken = bytearray(data)
            for _ in range(rng.randint(1, 4)):
                broken[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            files[f"{name}-{number}"] = bytes(broken)
    return files


def polyglots() -> Files:
    """Files that are two things at once, and those that look like something else."""
    png, jpeg, gif, bmp, webp = (good()[name] for name in ("png", "jpeg", "gif", "bmp", "webp"))
    html, archive = b"<html><script>alert(1)</script></html>", b"PK\5\6" + bytes(18)
    second = png_header(60_000, 60_000)
    files = {f"{name}-and-archive": data + archive for name, data in good().items()}
    files |= {
        "gif-and-script": b"GIF89a=1;/*" + gif[13:] + b"*/",
        "jpeg-comment-html": after_start(jpeg, segment(0xFE, html)),
        "png-text-html": small_png(chunk(b"tEXt", b"a\0" + html)),
        "png-then-jpeg": PNG + jpeg, "jpeg-then-png": jpeg[:2] + png, "png-and-jpeg": png + jpeg,
        "jpeg-and-png": jpeg + png, "jpeg-and-jpeg": jpeg + jpeg, "bmp-and-png": bmp + png,
        "riff-wave": webp[:8] + b"WAVE" + webp[12:], "html": html, "archive": archive,
        "empty-jpeg": b"\xff\xd8\xff\xd9",
        "two-headers": small_png(b"", second), "two-headers-before": small_png(second),
        "jpeg-in-bmp": bmp[:30] + struct.pack("<I", 4) + bmp[34:],
        "png-in-bmp": bmp[:30] + struct.pack("<I", 5) + bmp[34:],
    }  # fmt: skip
    return files


def odd_jpegs() -> Files:
    """JPEGs of the kinds that the standard has and hardly anybody writes."""
    jpeg, cmyk = good()["jpeg"], good()["jpeg-cmyk"]
    frame = jpeg.index(b"\xff\xc0")
    files = {f"frame-{kind:02x}": jpeg[: frame + 1] + bytes([kind]) + jpeg[frame + 2 :] for kind in range(0xC0, 0xD0)}
    for bits in (1, 7, 9, 12, 16):
        files[f"bits-{bits}"] = jpeg[: frame + 4] + bytes([bits]) + jpeg[frame + 5 :]
    for sampling in (0x00, 0x11, 0x12, 0x14, 0x21, 0x22, 0x41, 0x44, 0x31, 0x55):
        files[f"sampling-{sampling:02x}"] = jpeg[: frame + 11] + bytes([sampling]) + jpeg[frame + 12 :]
    for transform in (0, 1, 2, 3):
        adobe = segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))
        plain = cmyk[:2] + cmyk[cmyk.index(b"\xff\xdb") :]
        files[f"adobe-cmyk-{transform}"] = after_start(plain, adobe)
        files[f"adobe-rgb-{transform}"] = after_start(jpeg[:2] + jpeg[jpeg.index(b"\xff\xdb") :], adobe)
    for rows in (1, 2, 5):
        files[f"restart-rows-{rows}"] = encoded(photo(64, 48), "JPEG", restart_marker_rows=rows)
    files["without-adobe"] = cmyk[:2] + cmyk[cmyk.index(b"\xff\xdb") :]
    files["short-adobe"] = after_start(jpeg, segment(0xEE, b"Adobe"), segment(0xE0, b"JFIF\0"))
    lines = segment(0xDC, struct.pack(">H", 48))
    files["lines-behind"] = resized_jpeg(jpeg, 64, 0)[:-2] + lines + EOI
    files["without-end"] = jpeg[:-2]
    files["without-end-then-zeros"] = jpeg[:-2] + bytes(500)
    files["without-end-then-junk"] = jpeg[:-2] + b"\xff\x7f\xff\x02junk"
    files["two-frames"] = jpeg[:frame] + jpeg[frame : frame + 19] + jpeg[frame:]
    files["two-starts"] = jpeg[:2] + jpeg
    files["scan-before-frame"] = jpeg[:2] + jpeg[jpeg.index(b"\xff\xda") :]
    files["half-and-end"] = jpeg[: len(jpeg) * 3 // 4] + EOI
    return files


CLASSES: dict[str, Callable[[], Files]] = {
    make.__name__: make
    for make in (good, bombs, scans, frames, parts, metadata, sides, truncations, flips, polyglots, odd_jpegs)
}
