"""Images from untrusted bytes: what is read, what is refused, and that nothing but InvalidImage ever comes out."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from tests.images import COLOURS, encoded, exif_of, halves
from vlm.errors import InvalidImage
from vlm.image.decode import decode
from vlm.image.limits import ImageLimits
from vlm.image.scan import FORMATS, scan, upright_size

# Words that only a decoder's own exception would say.
LEAKS = (
    "object at 0x",
    "BytesIO",
    "PIL",
    "Pillow",
    "truncated",
    "cannot identify",
    "Traceback",
    "struct",
    "zlib",
    "codec",
)

Read = Callable[[bytes], object]
READERS: tuple[Read, ...] = (scan, upright_size, decode)


def _near(image: Image.Image, place: tuple[int, int], colour: tuple[int, int, int], tolerance: int = 40) -> bool:
    pixel = image.getpixel(place)
    assert isinstance(pixel, tuple)
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, colour, strict=True))


def _is_halves(image: Image.Image) -> bool:
    return (
        image.mode == "RGB"
        and image.size == (24, 16)
        and _near(image, (3, 8), COLOURS["red"])
        and _near(image, (20, 8), COLOURS["blue"])
    )


def _refusal(read: Read, data: bytes) -> InvalidImage:
    with pytest.raises(InvalidImage) as caught:
        read(data)
    assert not any(word in caught.value.message for word in LEAKS)
    return caught.value


def _image_or_refusal(read: Read, data: bytes) -> None:
    message = ""
    try:
        read(data)
    except InvalidImage as error:
        message = error.message
    assert not any(word in message for word in LEAKS)


# What is read.


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_format_is_scanned_and_decoded(image_format: str) -> None:
    data = encoded(halves(), image_format)
    found = scan(data)
    assert (found.format, found.width, found.height) == (image_format, 24, 16)
    assert _is_halves(decode(data))


def test_a_jpeg_with_a_second_image_behind_it_is_a_jpeg() -> None:
    data = encoded(halves(), "MPO", save_all=True, append_images=[Image.new("RGB", (24, 16))])
    assert (scan(data).format, scan(data).size) == ("JPEG", (24, 16))
    assert _is_halves(decode(data))


@pytest.mark.parametrize(
    ("mode", "image_format"), [("RGBA", "PNG"), ("P", "PNG"), ("P", "GIF"), ("P", "BMP"), ("CMYK", "JPEG")]
)
def test_other_colour_modes_become_rgb(mode: str, image_format: str) -> None:
    assert _is_halves(decode(encoded(halves().convert(mode), image_format)))


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_modes_become_rgb(mode: str) -> None:
    grey = Image.new("L", (4, 2), 0)
    grey.putpixel((3, 1), 255)
    image = decode(encoded(grey.convert(mode), "PNG"))
    assert image.mode == "RGB"
    assert (image.getpixel((0, 0)), image.getpixel((3, 1))) == ((0, 0, 0), (255, 255, 255))


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    grey = Image.new("I;16", (4, 1))
    for x, value in enumerate((0, 32896, 65280, 65535)):
        grey.putpixel((x, 0), value)
    image = decode(encoded(grey, "PNG"))
    assert [image.getpixel((x, 0)) for x in range(4)] == [(0,) * 3, (128,) * 3, (254,) * 3, (255,) * 3]


def test_only_the_first_frame_of_an_animation_is_read() -> None:
    others = [Image.new("RGB", (24, 16), (0, 255, 0)) for _ in range(3)]
    for image_format in ("GIF", "WEBP", "PNG"):
        assert _is_halves(decode(encoded(halves(), image_format, save_all=True, append_images=others)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    upright = halves()
    upright.putpixel((0, 0), (0, 255, 0))  # so that a mirrored answer differs
    turned = upright if stored is None else upright.transpose(stored)
    data = encoded(turned, "PNG", exif=exif_of(orientation))
    assert decode(data).tobytes() == upright.tobytes()
    assert (scan(data).width, scan(data).height) == turned.size
    assert upright_size(data) == upright.size


def _behind_the_pixels(data: bytes) -> bytes:
    """The same PNG with its EXIF chunk at the end, where the format allows it, too."""
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4])
    assert end < data.index(b"IDAT")
    return data[:start] + data[end:-12] + data[start:end] + data[-12:]


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_upright_size_is_that_of_the_decoded_image_and_costs_no_pixels(
    image_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = [encoded(halves(), image_format, exif=exif_of(value)) for value in range(1, 9)]
    turned += [_behind_the_pixels(data) for data in turned if image_format == "PNG"]
    sizes = [decode(data).size for data in turned]
    assert len(set(sizes)) == (1 if image_format in ("GIF", "BMP") else 2)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("the pixels were read"))
    assert [upright_size(data) for data in turned] == sizes


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_orientation_is_upright(orientation: int) -> None:
    assert _is_halves(decode(encoded(halves(), "JPEG", exif=exif_of(orientation))))


def test_odd_metadata_beside_the_orientation_does_no_harm() -> None:
    exif = exif_of(3)
    exif[0x011A] = 72.0
    plain = exif.tobytes()
    odd = plain.replace(b"\x01\x1a\x00\x05", b"\x01\x1a\x00\x02")  # the resolution declared as words
    odd = odd.replace(b"\x1a\x01\x05\x00", b"\x1a\x01\x02\x00")
    assert odd != plain
    data = encoded(halves().rotate(180), "JPEG", exif=odd)
    with Image.open(io.BytesIO(data)) as image, pytest.raises(TypeError):
        ImageOps.exif_transpose(image)
    assert _is_halves(decode(data))


def test_one_pixel_is_an_image() -> None:
    for image_format in FORMATS:
        assert decode(encoded(Image.new("RGB", (1, 1)), image_format)).size == (1, 1)


def test_an_extreme_shape_is_an_image() -> None:
    assert decode(encoded(Image.new("RGB", (1, 10_000)), "PNG")).size == (1, 10_000)


# What is refused.

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
ALIEN: dict[str, bytes] = {
    "tiff": encoded(halves(), "TIFF"),
    "jpeg2000": encoded(halves(), "JPEG2000"),
    "ico": encoded(halves(), "ICO"),
    "ppm": encoded(halves(), "PPM"),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    "svg": SVG,
    "text": b"just some words",
    "pickle": pickle.dumps({"a": 1}),
    "html": b"<!DOCTYPE html><html></html>",
    "zeros": bytes(1000),
    "signature": b"\x89PNG\r\n\x1a\n",
}


@pytest.mark.parametrize("name", ALIEN)
@pytest.mark.parametrize("read", READERS)
def test_what_is_no_accepted_image_is_refused(name: str, read: Read) -> None:
    assert _refusal(read, ALIEN[name]).code == "invalid_image_format"


@pytest.mark.parametrize("read", READERS)
def test_nothing_is_refused(read: Read) -> None:
    assert _refusal(read, b"").code == "empty_image_file"


@pytest.mark.parametrize("read", [scan, upright_size, decode])
def test_limits(read: Callable[[bytes, ImageLimits], object]) -> None:
    data = encoded(halves(), "PNG")
    limits = {
        "image_file_too_large": ImageLimits(max_bytes=len(data) - 1),
        "image_too_large": ImageLimits(max_pixels=24 * 16 - 1),
        "image_too_small": ImageLimits(min_side=17),
    }
    for code, limit in limits.items():
        assert _refusal(lambda image, limit=limit: read(image, limit), data).code == code  # type: ignore[misc]  # a default binds the loop's value
    read(data, ImageLimits(max_bytes=len(data), max_pixels=24 * 16, min_side=16))


def _png_of_size(width: int, height: int) -> bytes:
    """A tiny file whose header claims any size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\x00" * 100)
    chunks = (header, body, b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


@pytest.mark.parametrize("side", [7_000, 10_000, 20_000, 2**31 - 1])  # the last three are also over PIL's own limits
@pytest.mark.parametrize("read", READERS)
def test_a_decompression_bomb_is_refused_by_its_header(side: int, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("the pixels were read"))
    assert _refusal(read, _png_of_size(side, side)).code == "image_too_large"


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_file_that_is_cut_short_gives_an_image_or_a_refusal(image_format: str) -> None:
    data = encoded(Image.effect_noise((24, 16), 90).convert("RGB"), image_format)
    for length in range(len(data)):
        for read in READERS:
            _image_or_refusal(read, data[:length])


def test_a_png_or_jpeg_without_its_second_half_is_damaged() -> None:
    for image_format in ("PNG", "JPEG"):
        data = encoded(Image.effect_noise((99, 99), 90).convert("RGB"), image_format)
        assert _refusal(decode, data[: len(data) // 2]).code == "image_parse_error"


def _rich(image_format: str, **settings: Any) -> bytes:
    exif = exif_of(6)
    exif[0x010E] = "words"
    exif[0x011A] = 72.0
    return encoded(halves(), image_format, exif=exif, **settings)


SEEDS = [
    _rich("PNG", icc_profile=b"\x00" * 64),
    encoded(halves().convert("P"), "PNG", transparency=b"\x00\x80"),
    _rich("JPEG"),
    _rich("JPEG", progressive=True),
    encoded(halves().convert("CMYK"), "JPEG"),
    _rich("WEBP"),
    encoded(halves().convert("P"), "GIF", save_all=True, append_images=[Image.new("P", (24, 16))]),
    encoded(halves(), "BMP"),
    encoded(halves().convert("1"), "BMP"),
]


@pytest.mark.filterwarnings("ignore")  # PIL warns of damaged metadata; the image is read all the same
@settings(max_examples=400, deadline=None)
@given(st.data())
def test_flipped_bytes_give_an_image_or_a_refusal(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(SEEDS)))
    places = st.integers(0, len(damaged) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=12)):
        damaged[place] = value
    for read in READERS:
        _image_or_refusal(read, bytes(damaged))
    with contextlib.suppress(InvalidImage):
        assert decode(bytes(damaged)).size == upright_size(bytes(damaged))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    for read in READERS:
        _refusal(read, data)
