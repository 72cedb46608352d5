"""A part of an image is answered as an image of that part alone is."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from PIL import Image

from tests.images import oriented, png, scene
from tests.vlm.engine.world import BLIP, FLORENCE, KOSMOS, comparable, miniature
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.engine.prepare import key_of
from vlm.errors import InvalidRequest
from vlm.types import Box, Cropped, Request, Task

BOX = Box(0.1, 0.25, 0.6, 0.9)


def cut(image: bytes, box: Box) -> bytes:
    """The part as an image of its own, without loss."""
    whole = Image.open(io.BytesIO(image)).convert("RGB")
    return png(whole.crop(box.pixels(whole.size)))


@pytest.mark.parametrize("name", [BLIP, FLORENCE, KOSMOS, "moondream-2"])
@pytest.mark.parametrize("processes", [0, 1])
def test_the_answer_is_that_of_the_part(name: str, processes: int) -> None:
    """The same image whole and in parts, at once: no part takes what is kept of another."""
    task = Task("caption")
    whole = Request(scene(5), task=task, stream=False)
    boxes = (BOX, Box(0, 0, 1, 0.5), Box(0.4, 0.4, 1, 1))
    parts = [replace(whole, crop=box) for box in boxes]
    alone = [replace(whole, image=cut(scene(5), box)) for box in boxes]
    config = EngineConfig(cache_bytes=64 * 1024**2, decode_processes=processes)
    with Engine(miniature(name), config) as engine:
        together = [comparable(one) for one in engine.answer_all([whole, *parts])]
        assert together[1:] == [comparable(one) for one in engine.answer_all(alone)]
        assert together[0] == comparable(engine.answer(whole))


def test_the_size_is_that_of_the_part() -> None:
    with Engine(miniature(BLIP), EngineConfig(cache_bytes=64 * 1024**2)) as engine:
        answer = engine.answer(Request(oriented(6, 640, 480), crop=Box(0, 0, 0.5, 0.25)))
    assert answer.grounding.image_size == (240, 160)


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        (Box(0, 0, 1, 1), (0, 0, 64, 48)),
        (Box(0.5, 0.5, 0.5, 0.5), (32, 24, 33, 25)),
        (Box(1, 1, 1, 1), (63, 47, 64, 48)),
        (Box(0.25, 0, 0.75, 1), (16, 0, 48, 48)),
    ],
)
def test_a_part_has_at_least_a_pixel_within_the_image(box: Box, pixels: tuple[int, int, int, int]) -> None:
    assert box.pixels((64, 48)) == pixels
    assert Cropped(b"", box).size((64, 48)) == (pixels[2] - pixels[0], pixels[3] - pixels[1])


def test_each_part_has_a_key_of_its_own() -> None:
    whole = Request(b"image")
    keys = {key_of(request) for request in (whole, replace(whole, crop=BOX), replace(whole, crop=Box(0, 0, 1, 1)))}
    assert len(keys) == 3


def test_a_part_of_no_image_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="crop"):
        Request(None, crop=BOX)
    with pytest.raises(InvalidRequest, match="crop"):
        Request(None, images=(b"a", b"b"), crop=BOX)
