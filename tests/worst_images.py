"""The images that cost most to decode of all that are accepted: 40 megapixels in every format.

Each takes less than 3 MiB, so that many of them at once are let in and all of them are decoded. Bytes behind an image
change nothing but make another file of it, which no cache knows.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from typing import Any

from PIL import Image

from tests.hostile_images import EOI, PNG, chunk, png_header
from tests.images import encoded
from vlm.image.limits import ImageLimits

LIMITS = ImageLimits()
SIDE = int(LIMITS.max_pixels**0.5)
"""Of a square at the limit on pixels."""
ROWS_AT_ONCE = 124


def baseline_jpeg() -> bytes:
    """Three colours of full resolution in one scan."""
    return encoded(noise(60), "JPEG", quality=60, subsampling=0)


def progressive_jpeg(scans: int = LIMITS.max_scans, side: int = SIDE) -> bytes:
    """A JPEG of so many scans, by default as many as are accepted: its last scan, of few bytes, is repeated."""
    jpeg = encoded(noise(4, side), "JPEG", quality=30, subsampling=0, progressive=True)
    last = jpeg[jpeg.rindex(b"\xff\xda") : -len(EOI)]
    return jpeg[: -len(EOI)] + last * (scans - jpeg.count(b"\xff\xda")) + EOI


def png(bits: int = 8) -> bytes:
    """RGBA whose rows are predicted from two neighbours and from what is above (Paeth), the slowest filter."""
    row = b"\x04" + random.Random(1).randbytes(64) * (SIDE * bits // 128) + bytes(SIDE * bits // 2 % 64)
    packer = zlib.compressobj(1)
    pixels = b"".join(packer.compress(row * ROWS_AT_ONCE) for _ in range(SIDE // ROWS_AT_ONCE))
    pixels += packer.compress(row * (SIDE % ROWS_AT_ONCE)) + packer.flush()
    return PNG + png_header(SIDE, SIDE, bits, 6) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def webp() -> bytes:
    """Lossy, which takes most memory for each pixel."""
    return encoded(noise(90), "WEBP", quality=60, method=0)


def lossless_webp() -> bytes:
    """Blocks of one colour each."""
    return encoded(noise(800, resample=Image.Resampling.NEAREST), "WEBP", lossless=True, quality=0, method=1)


def noise(cells: int, side: int = SIDE, resample: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    """Random colours, ``cells`` of them on each side."""
    coarse = Image.frombytes("RGB", (cells, cells), random.Random(cells).randbytes(cells * cells * 3))
    return coarse.resize((side, side), resample)


WORST: dict[str, Callable[[], bytes]] = {
    "JPEG": baseline_jpeg,
    "JPEG, 32 scans": progressive_jpeg,
    "PNG": png,
    "PNG, 16 bits": lambda: png(16),
    "WebP": webp,
    "WebP, lossless": lossless_webp,
}


def copies(image: bytes, number: int) -> list[bytes]:
    """So many files with this image."""
    rng: Any = random.SystemRandom()
    return [image + rng.randbytes(16) for _ in range(number)]
