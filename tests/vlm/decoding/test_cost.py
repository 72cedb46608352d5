"""What decoding an image is estimated to hold."""

from __future__ import annotations

import pytest

from tests.images import plain
from vlm.decoding.cost import decoding_bytes
from vlm.errors import InvalidImage


@pytest.mark.parametrize(("image_format", "per_pixel"), [("PNG", 12), ("JPEG", 12), ("WEBP", 24), ("GIF", 12)])
def test_it_follows_from_the_size_and_the_format(image_format: str, per_pixel: int) -> None:
    image = plain(30, 20, image_format)
    assert decoding_bytes(image) == 600 * per_pixel + 2 * len(image)


def test_what_is_no_image_has_none() -> None:
    with pytest.raises(InvalidImage):
        decoding_bytes(b"no image")
