"""What decoding an image is estimated to hold."""

from __future__ import annotations

import pytest

from tests.images import oriented, plain
from vlm.decoding.cost import announced
from vlm.errors import InvalidImage
from vlm.image.decode import decode
from vlm.image.scan import decoded_bytes, scan


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_it_is_what_the_scan_of_the_image_tells(image_format: str) -> None:
    image = plain(30, 20, image_format)
    found = announced(image)
    assert (found.memory_bytes, found.size) == (decoded_bytes(scan(image)), (30, 20))
    assert announced(image, few_parts=True) == found


def test_the_size_is_that_of_the_upright_image() -> None:
    assert announced(oriented(6, 90, 60)).size == decode(oriented(6, 90, 60)).size


def test_an_image_of_many_parts_is_refused_where_few_are_asked_for() -> None:
    comments = b"\xff\xfe\0\2" * 300
    photo = plain(30, 20, "JPEG")
    image = photo[:2] + comments + photo[2:]
    assert announced(image).memory_bytes > 0
    with pytest.raises(InvalidImage, match="segments"):
        announced(image, few_parts=True)


def test_a_size_beyond_the_default_limits_is_no_error_here() -> None:
    assert announced(plain(20_000, 1, "PNG")).size == (20_000, 1)


def test_what_is_no_image_has_none() -> None:
    with pytest.raises(InvalidImage):
        announced(b"no image")
