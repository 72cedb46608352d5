"""What decoding an image is estimated to hold."""

from __future__ import annotations

import pytest

from tests.images import plain
from vlm.decoding.cost import decoding_bytes
from vlm.errors import InvalidImage
from vlm.image.scan import decoded_bytes, scan


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_it_is_what_the_scan_of_the_image_tells(image_format: str) -> None:
    image = plain(30, 20, image_format)
    assert decoding_bytes(image) == decoded_bytes(scan(image))


def test_a_size_beyond_the_default_limits_is_no_error_here() -> None:
    assert decoding_bytes(plain(20_000, 1, "PNG")) > 0


def test_what_is_no_image_has_none() -> None:
    with pytest.raises(InvalidImage):
        decoding_bytes(b"no image")
