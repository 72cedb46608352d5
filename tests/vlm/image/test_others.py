"""Formats that are not accepted are named in the refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.images import encoded
from vlm.errors import InvalidImage
from vlm.image.scan import scan
from vlm.image.scan.others import name_of


def box(brand: bytes) -> bytes:
    """The beginning of a file of ISO's media format."""
    return b"\0\0\0\x18ftyp" + brand + bytes(16)


OTHERS = [
    (b"%PDF-1.7\n", "a PDF document"),
    (encoded(Image.new("RGB", (8, 8)), "TIFF"), "a TIFF image"),
    (encoded(Image.new("RGB", (8, 8)), "JPEG2000"), "a JPEG 2000 image"),
    (encoded(Image.new("RGB", (8, 8)), "ICO"), "an icon (ICO)"),
    (box(b"avif"), "an AVIF image"),
    (box(b"heic"), "a HEIC image"),
    (box(b"mif1"), "a HEIC image"),
    (box(b"isom"), "a video"),
    (b"\x1a\x45\xdf\xa3" + bytes(8), "a video"),
    (b"\xff\x0a\xfa", "a JPEG XL image"),
    (b"8BPS\0\1", "a Photoshop file"),
    (b"%!PS-Adobe-3.0", "a PostScript file"),
    (b"PK\3\4", "a ZIP archive"),
    (b"\x1f\x8b\x08", "compressed (gzip)"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG image"),
    (b"\xef\xbb\xbf\n<?xml version='1.0'?><!-- by hand --><SVG>", "an SVG image"),
    (b"<!DOCTYPE html><html><svg></svg></html>", "a web page (HTML)"),
    (b"<html><body>", "a web page (HTML)"),
]


@pytest.mark.parametrize(("data", "name"), OTHERS)
def test_what_is_known_is_named(data: bytes, name: str) -> None:
    assert name_of(data) == name
    with pytest.raises(InvalidImage) as caught:
        scan(data)
    assert caught.value.code == "invalid_image_format"
    assert caught.value.message == (
        f"The data is {name}, which is not supported; send the image as PNG, JPEG, WEBP, GIF or BMP."
    )


@pytest.mark.parametrize("data", [b"just words about <svg>", b"<note/>", b"{}", bytes(100)])
def test_what_is_not_known_has_no_name(data: bytes) -> None:
    assert name_of(data) is None


@given(st.binary(max_size=40))
def test_any_bytes_have_a_name_or_none(data: bytes) -> None:
    assert name_of(data) is None or name_of(data + b"more") == name_of(data)
