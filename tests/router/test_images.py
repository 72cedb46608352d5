"""Data URLs, and nothing else, become bytes."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from router.images import read_image, upright_size_of
from tests.images import data_url, encoded, plain
from tests.router.world import IMAGE, SIZE, URL
from vlm.errors import InvalidImage
from vlm.image.decode import ImageLimits

ROOT = Path(__file__).parents[2]
LIMITS = ImageLimits(max_bytes=5000)


def refused(url: str, limits: ImageLimits = LIMITS) -> InvalidImage:
    with pytest.raises(InvalidImage) as caught:
        read_image(url, limits, "here")
    assert caught.value.param == "here"
    return caught.value


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_every_accepted_format(kind: str) -> None:
    data = plain(8, 8, kind)
    assert read_image(data_url(data, f"image/{kind.lower()}"), LIMITS, "here") == data


@pytest.mark.parametrize("media", ["image/png", "IMAGE/PNG", "image/jpeg", "image/x-icon", "image/png;charset=utf-8"])
def test_the_bytes_decide_and_not_the_media_type(media: str) -> None:
    assert read_image(data_url(IMAGE, media), LIMITS, "here") == IMAGE


def test_an_image_at_the_limit_is_accepted_and_one_above_it_is_not() -> None:
    padded = IMAGE + bytes(LIMITS.max_bytes - len(IMAGE))
    assert len(read_image(data_url(padded), LIMITS, "here")) == LIMITS.max_bytes
    assert refused(data_url(padded + b"\0")).code == "image_file_too_large"
    assert refused(data_url(padded * 2)).code == "image_file_too_large"


def test_limits_of_the_image_itself() -> None:
    assert refused(URL, ImageLimits(max_pixels=640 * 480 - 1)).code == "image_too_large"
    assert refused(data_url(plain(3, 40)), ImageLimits(min_side=4)).code == "image_too_small"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cat.png",
        "C:\\cat.png",
        "ftp://example.com/cat.png",
        "HTTPS://example.com/cat.png",
        " data:image/png;base64,AAAA",
        "data:image/png;base64",
        "javascript:alert(1)",
        "\\\\host\\share\\cat.png",
        "data:" + "x" * 10_000 + ";base64,AAAA",
        "data:" + ";a" * 600 + ";base64,AAAA",
    ],
)
def test_other_urls_are_refused_with_advice(url: str) -> None:
    error = refused(url)
    assert error.code == "invalid_image_url"
    assert "data URL" in error.message


@given(st.binary(max_size=200))
def test_bytes_of_no_known_format_are_refused(data: bytes) -> None:
    assert refused(data_url(data)).code in {"empty_image_file", "invalid_image_format", "image_too_large"}


def spelled(image: bytes) -> dict[str, str]:
    """Data URLs of one image as clients have been seen to write them."""
    plain = base64.b64encode(image).decode()
    lines = "\n".join(plain[start : start + 76] for start in range(0, len(plain), 76))
    url_safe = base64.urlsafe_b64encode(image).decode()
    return {
        "line breaks": f"data:image/png;base64,{lines}",
        "line breaks of Windows": "data:image/png;base64," + lines.replace("\n", "\r\n"),
        "a trailing newline": f"data:image/png;base64,{plain}\n",
        "blanks": f"data:image/png;base64, {plain[:40]} {plain[40:]}",
        "no padding": "data:image/png;base64," + plain.rstrip("="),
        "URL-safe": f"data:image/png;base64,{url_safe}",
        "URL-safe without padding": "data:image/png;base64," + url_safe.rstrip("="),
        "percent signs": f"data:image/png;base64,{quote(plain, safe='')}",
        "capitals": f"DATA:IMAGE/PNG;BASE64,{plain}",
        "parameters": f"data:image/png;name=a cat (1).png;charset=utf-8;base64,{plain}",
        "a blank before base64": f"data:image/png; base64,{plain}",
        "no media type": f"data:;base64,{plain}",
        "a generic media type": f"data:application/octet-stream;base64,{plain}",
        "a wrong media type": f"data:text/html;base64,{plain}",
    }


@pytest.mark.parametrize("spelling", spelled(b""))
def test_the_bytes_are_read_however_they_are_spelled(spelling: str) -> None:
    assert len(IMAGE) % 3  # so that there is padding
    assert read_image(spelled(IMAGE)[spelling], LIMITS, "here") == IMAGE


def test_line_breaks_do_not_count_against_the_limit() -> None:
    padded = IMAGE + bytes(LIMITS.max_bytes - len(IMAGE))
    assert read_image(spelled(padded)["line breaks of Windows"], LIMITS, "here") == padded
    assert refused(spelled(padded + b"0")["line breaks of Windows"]).code == "image_file_too_large"


@given(st.text(st.sampled_from('AQgw09+/-_=\n %é\\"'), max_size=20))
@example("\\u0041\\u0041\\u0041\\u0041")
@example('AAAA"')
@example("AAAA====")
def test_what_is_not_base64_in_any_spelling_is_refused(text: str) -> None:
    plain = re.sub("[ \n]", "", text).rstrip("=")
    valid = re.fullmatch("[AQgw09+/_-]*", plain) is not None and len(plain) % 4 != 1
    code = refused(f"data:image/png;base64,{text}").code
    assert "%" in text or (code == "invalid_base64_image") == (not valid)


@given(st.text(max_size=300))
def test_text_is_never_accepted_as_an_image(url: str) -> None:
    error = refused(url)
    assert len(url) < 12 or url not in error.message


def test_broken_metadata_is_no_reason_to_refuse_an_image() -> None:
    broken = PngInfo()
    broken.add_text("Raw profile type exif", "\n\n\nno hexadecimal digits")
    data = encoded(Image.new("RGB", (4, 3)), "PNG", pnginfo=broken)
    assert read_image(data_url(data), LIMITS, "here") == data
    assert upright_size_of(data, LIMITS, "here") == (4, 3)
    assert upright_size_of(IMAGE, LIMITS, "here") == SIZE


def test_the_router_has_no_decoder() -> None:
    """An image cannot bring down a process that could not decode it if it tried."""
    command = "import router.app, sys; print(*{'PIL', 'numpy', 'torch'} & sys.modules.keys())"
    ended = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_bare_base64_is_told_what_it_lacks(image_format: str) -> None:
    bare = base64.b64encode(plain(32, 32, image_format)).decode()
    error = refused(bare)
    assert error.code == "invalid_image_url"
    assert error.message == "The image is base64 without a beginning: put data:image/png;base64, in front of it."
    assert read_image(f"data:image/png;base64,{bare}", LIMITS, "here") == plain(32, 32, image_format)


@pytest.mark.parametrize("path", ["/9j/me.jpg", "Qk.bmp", "images/iVBORw0K.png", "/home/kim/" + "a" * 100])
def test_a_path_is_not_taken_for_base64(path: str) -> None:
    assert "file paths" in refused(path).message
