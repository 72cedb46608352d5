"""What a scan says of good images, that its work is bounded, and what it counts on memory to take."""

from __future__ import annotations

import io
import itertools
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.hostile_images import (
    EOI,
    after_start,
    chunk,
    directory,
    good,
    metadata,
    packed_bmp,
    photo,
    png_of,
    segment,
    small_png,
    with_exif,
)
from tests.images import encoded, halves
from vlm.errors import InvalidImage
from vlm.image.decode import decode
from vlm.image.limits import ImageLimits
from vlm.image.scan import ImageScan, decoded_bytes, essential, jpeg, png, scan, upright_size, webp

ROOT = Path(__file__).parents[3]
MIB = 1 << 20


def refusal(data: bytes, limits: ImageLimits = ImageLimits()) -> InvalidImage:
    with pytest.raises(InvalidImage) as caught:
        scan(data, limits)
    return caught.value


def test_scanning_needs_the_standard_library_alone() -> None:
    command = "import vlm.image.scan, sys; print(*{'PIL', 'numpy', 'torch'} & sys.modules.keys())"
    ended = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""


# What is found.


@pytest.mark.parametrize("name", sorted(good()))
def test_a_scan_agrees_with_the_decoder(name: str) -> None:
    data = good()[name]
    found = scan(data)
    with Image.open(io.BytesIO(data)) as image:
        assert (found.width, found.height) == image.size
        assert found.format == {"MPO": "JPEG"}.get(str(image.format), image.format)
        assert found.has_alpha == image.has_transparency_data
    assert decode(data).size == found.size == upright_size(data)
    assert found.file_bytes == len(data)
    assert found.complete


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("png", {"channels": 3, "bits": 8, "orientation": 6}),
        ("png-16", {"channels": 1, "bits": 16}),
        ("png-1", {"channels": 1, "bits": 1}),
        ("png-palette", {"channels": 1, "palette": True, "has_alpha": True}),
        ("png-alpha", {"channels": 4, "has_alpha": True}),
        ("png-grey-alpha", {"channels": 2, "has_alpha": True}),
        ("apng", {"frames": 3}),
        ("jpeg", {"channels": 3, "scans": 1, "progressive": False, "orientation": 8, "held_bytes": 0}),
        ("jpeg-progressive", {"channels": 3, "scans": 10, "progressive": True}),
        ("jpeg-grey-progressive", {"channels": 1, "scans": 6, "held_bytes": 64 * 48 * 2}),
        ("jpeg-cmyk", {"channels": 4}),
        ("webp", {"orientation": 3, "frames": 1}),
        ("webp-animation", {"frames": 3}),
        ("gif-animation", {"frames": 3, "channels": 1, "palette": True}),
        ("gif-transparent", {"has_alpha": True}),
        ("bmp", {"channels": 3, "bits": 8}),
        ("bmp-1", {"channels": 1, "bits": 1, "palette": True}),
    ],
)
def test_facts(name: str, facts: dict[str, Any]) -> None:
    found = scan(good()[name])
    assert {key: getattr(found, key) for key in facts} == facts


def test_the_size_of_metadata() -> None:
    assert scan(small_png()).metadata_bytes == 0
    assert scan(small_png(chunk(b"iCCP", bytes(1000)))).metadata_bytes == 1012
    assert scan(small_png(b"", chunk(b"tEXt", bytes(10)))).metadata_bytes == 22
    plain, commented = scan(good()["jpeg-422"]), scan(after_start(good()["jpeg-422"], segment(0xFE, bytes(100))))
    assert commented.metadata_bytes - plain.metadata_bytes == 104


def test_coefficients_are_counted_at_the_resolution_of_each_component() -> None:
    """17 x 17: colour at half the resolution is padded to two blocks, and grey to four of them."""
    image = photo().resize((17, 17))
    halved = scan(encoded(image, "JPEG", progressive=True, subsampling=2))
    whole = scan(encoded(image, "JPEG", progressive=True, subsampling=0))
    assert halved.held_bytes == 2 * (32 * 32 + 2 * 16 * 16)
    assert whole.held_bytes == 2 * 3 * 24 * 24


# Orientation.


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(10))
def test_the_orientation_in_either_byte_order(image_format: str, order: str, orientation: int) -> None:
    value = orientation if order == "<" else orientation << 16
    entries = [(0x010F, 2, 4, 0), (0x0112, 3, 1, value), (0x8769, 4, 1, 8)]
    found = scan(with_exif(image_format, directory(entries, order)))
    assert found.orientation == (orientation if 1 <= orientation <= 8 else 1)


def test_what_cannot_be_read_means_upright() -> None:
    upright = {name: scan(data).orientation for name, data in metadata().items() if "orientation" not in name}
    readable = {name for name, orientation in upright.items() if orientation == 6}
    assert readable == {f"{kind}-cycle-<" for kind in ("png", "jpeg", "webp")}
    assert {orientation for name, orientation in upright.items() if name not in readable} == {1}


def test_an_orientation_elsewhere_than_in_exif() -> None:
    text = b"\nexif\n      26\n" + directory([(0x0112, 3, 1, 6)]).hex().encode() + b"\n"
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    assert scan(small_png(chunk(b"tEXt", b"Raw profile type exif\0" + text))).orientation == 6
    assert scan(small_png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))).orientation == 8
    jpeg = after_start(good()["jpeg-422"], segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp))
    assert scan(jpeg).orientation == 8
    exif = segment(0xE1, b"Exif\0\0" + directory([(0x0112, 3, 1, 3)]))
    assert scan(after_start(jpeg, exif)).orientation == 3, "EXIF comes first"


def test_of_each_kind_of_metadata_the_first_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that thousands of blocks that cannot be read cost no more than one."""
    tried: list[bytes] = []
    for module in (png, jpeg, webp):
        monkeypatch.setattr(module, "in_exif", tried.append)
    exif = directory([(0x0112, 3, 1, 6)])
    for data in (
        small_png(chunk(b"eXIf", b"broken") + chunk(b"eXIf", exif) * 50),
        after_start(good()["jpeg-422"], segment(0xE1, b"Exif\0\0broken"), segment(0xE1, b"Exif\0\0" + exif) * 50),
        with_exif("WEBP", b"broken") + b"EXIF" + bytes(4),
    ):
        tried.clear()
        assert scan(data).orientation == 1
        assert len(tried) == 1


def test_a_heading_of_many_lines_is_no_profile() -> None:
    """A pattern that tries every way to divide the lines would never end."""
    for blank in (b"\n", b" ", b"1", b"\n "):
        text = b"\nexif\n" + blank * 200_000
        assert scan(small_png(chunk(b"tEXt", b"Raw profile type exif\0" + text))).orientation == 1


# What is refused, and with which words.


@pytest.mark.parametrize(("width", "height"), [(16_385, 1), (1, 16_385), (1, 40_000_000)])
def test_a_side_is_limited_as_well_as_the_area(width: int, height: int) -> None:
    error = refusal(png_of(width, height))
    assert error.code == "image_too_large"
    assert "16384 pixels" in error.message
    assert scan(png_of(16_384, 1)).width == 16_384


def test_the_limit_on_scans() -> None:
    jpeg = good()["jpeg-progressive"]
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    assert scan(jpeg[:-2] + last * 22 + EOI).scans == 32
    error = refusal(jpeg[:-2] + last * 23 + EOI)
    assert (error.code, "32 scans" in error.message) == ("invalid_image", True)


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (small_png(chunk(b"prIv", b"") * 20), ImageLimits(max_chunks=23)),
        (after_start(good()["jpeg-422"], segment(0xFE, b"") * 14), ImageLimits(max_chunks=24)),
        (good()["gif"], ImageLimits(max_blocks=40)),
    ],
)
def test_the_limits_on_parts(data: bytes, limits: ImageLimits) -> None:
    steps = range(1, 60)
    fewest = next(count for count in steps if _is_read(data, ImageLimits(max_chunks=count, max_blocks=count)))
    assert fewest > 10
    assert refusal(data, ImageLimits(max_chunks=fewest - 1, max_blocks=fewest - 1)).code == "invalid_image"
    assert not _is_read(data, ImageLimits(max_chunks=1, max_blocks=1))
    assert _is_read(data, limits)


def _is_read(data: bytes, limits: ImageLimits) -> bool:
    try:
        scan(data, limits)
    except InvalidImage:
        return False
    return True


def test_frames_behind_the_first_do_not_count_against_a_gif() -> None:
    gif = good()["gif"]
    animated = gif[:-1] + gif[gif.index(b",") : -1] * 50 + b";"
    found = scan(animated, ImageLimits(max_blocks=200))
    assert 1 < found.frames < 51
    assert scan(animated).frames == 51
    assert decode(animated, ImageLimits(max_blocks=200)).tobytes() == decode(gif).tobytes()


@pytest.mark.parametrize(
    ("name", "words"),
    [("jpeg-12-bits", "12 bits"), ("jpeg-hierarchical", "baseline or progressive"), ("bmp-of-jpeg", "kind of BMP"),
     ("bmp-packed", "run-length")],
)  # fmt: skip
def test_variants_that_cannot_be_read_are_refused_with_advice(name: str, words: str) -> None:
    jpeg, bmp = good()["jpeg"], good()["bmp"]
    frame = jpeg.index(b"\xff\xc0")
    data = {
        "jpeg-12-bits": jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :],
        "jpeg-hierarchical": jpeg[: frame + 1] + b"\xc5" + jpeg[frame + 2 :],
        "bmp-of-jpeg": bmp[:30] + struct.pack("<I", 4) + bmp[34:],
        "bmp-packed": packed_bmp(2000, 1100),
    }[name]
    error = refusal(data)
    assert (error.code, words in error.message) == ("invalid_image_format", True)


# What is left out for the decoder.


@pytest.mark.parametrize("name", sorted(good()))
def test_the_essential_file_is_the_same_image_without_metadata(name: str) -> None:
    data = good()[name]
    file = essential(data)
    before, after = scan(data), scan(file)
    assert (after.width, after.height, after.channels, after.bits) == (
        before.width, before.height, before.channels, before.bits,
    )  # fmt: skip
    assert after.orientation == 1
    assert after.metadata_bytes <= 40  # of a JPEG, what says how its samples become colours
    assert (after.frames, after.scans) == (1, before.scans)
    assert essential(file) == file


def test_a_decoder_sees_no_metadata() -> None:
    secret = b"a word that only metadata has"
    files = [
        small_png(chunk(b"tEXt", b"a\0" + secret), chunk(b"eXIf", secret)),
        after_start(good()["jpeg"], *(segment(marker, secret) for marker in (*range(0xE0, 0xF0), 0xFE))),
        encoded(halves(), "WEBP", exif=secret, xmp=secret, icc_profile=secret),
        encoded(halves().convert("P"), "GIF", comment=secret),
    ]
    for data in files:
        assert secret in data
        assert secret not in essential(data)


def test_a_second_header_of_webp_is_not_for_the_decoder() -> None:
    """The scan has read the first one, and so has whatever the limits were checked on."""
    pixels, side = encoded(halves(), "WEBP")[12:], (16_383).to_bytes(3, "little")
    data = _webp(pixels, b"VP8X", struct.pack("<I", 10), bytes(4), side, side)
    assert scan(data).size == scan(essential(data)).size == halves().size
    assert essential(data) == _webp(pixels)
    assert decode(data).size == halves().size


def test_a_header_of_webp_that_is_cut_short_is_none() -> None:
    junk = b"JUNK" + struct.pack("<I", 16) + bytes(16)  # its length would be read as the width
    assert refusal(_webp(b"VP8X", bytes(4), junk, encoded(halves(), "WEBP")[12:])).code == "invalid_image_format"


def _webp(*parts: bytes) -> bytes:
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


# Memory.


def _of(width: int = 1000, height: int = 1000, **facts: Any) -> ImageScan:
    return ImageScan("PNG", width, height, **facts)


def _per_pixel(found: ImageScan) -> int:
    """Bytes a pixel of an image of a million of them."""
    return decoded_bytes(found) // 10**6 - 6


@pytest.mark.parametrize(
    ("found", "bytes_a_pixel"),
    [
        (_of(), 8),  # the image, and its rows at the new width
        (_of(channels=1), 8),
        (_of(channels=1, palette=True, has_alpha=True), 10),  # 1, RGBA, the canvas, alpha
        (_of(channels=1, bits=16), 8),
        (_of(channels=4, has_alpha=True), 13),
        (ImageScan("JPEG", 1000, 1000), 8),
        (ImageScan("JPEG", 1000, 1000, progressive=True, held_bytes=6 * 10**6), 14),
        (ImageScan("JPEG", 1000, 1000, channels=4), 8),
        (ImageScan("WEBP", 1000, 1000), 18),
        (ImageScan("WEBP", 1000, 1000, channels=4, has_alpha=True), 18),
    ],
)
def test_bytes_of_a_pixel(found: ImageScan, bytes_a_pixel: int) -> None:
    assert _per_pixel(found) == bytes_a_pixel


def test_memory_grows_with_every_side_and_with_the_file() -> None:
    for width, height in itertools.product((1, 100, 10_000), (1, 100, 4000)):
        assert decoded_bytes(_of(width, height)) <= decoded_bytes(_of(width + 1, height))
        assert decoded_bytes(_of(width, height)) <= decoded_bytes(_of(width, height + 1))
    assert decoded_bytes(_of(file_bytes=MIB)) - decoded_bytes(_of()) == 3 * MIB
    assert decoded_bytes(_of(1, 1)) < 7 * MIB


def test_the_largest_image_fits_in_a_gigabyte() -> None:
    largest = ImageScan("WEBP", 8000, 5000, has_alpha=True, file_bytes=20 * MIB)
    assert decoded_bytes(largest) < 1024 * MIB
