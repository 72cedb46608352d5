"""The parts of a message that refer to an image, and the paths by which errors name them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.asgi.format import ImageReference
from router.chat.request import parse_chat
from router.config import RouterConfig
from tests.router.world import URL, image_part, text_part, user

Json = dict[str, Any]

FILE = {"type": "file", "file": {"file_id": "file-1", "filename": "cat.png"}}


def images(*parts: Json) -> tuple[ImageReference, ...]:
    body = {"model": "blip-large", "messages": [user(*parts)]}
    return parse_chat(json.dumps(body).encode(), RouterConfig()).images


@pytest.mark.parametrize(
    ("part", "reference"),
    [
        (image_part(), ImageReference(URL, "image_url.url")),
        (
            {"type": "image_url", "image_url": {"file_id": "file-1", "detail": "low"}},
            ImageReference("file-1", "image_url.file_id", is_file=True),
        ),
        (FILE, ImageReference("file-1", "file.file_id", is_file=True)),
        ({"type": "file", "file": {"file_data": URL}}, ImageReference(URL, "file.file_data")),
        ({"type": "file", "file": {"file_data": URL, "file_id": None}}, ImageReference(URL, "file.file_data")),
    ],
)
def test_every_way_to_name_an_image(part: Json, reference: ImageReference) -> None:
    [found] = images(part)
    assert (found.url, found.is_file) == (reference.url, reference.is_file)
    assert found.param == f"messages[0].content[0].{reference.param}"


def test_several_kinds_come_in_order() -> None:
    found = images(FILE, text_part("and"), image_part())
    assert [one.param for one in found] == [
        "messages[0].content[0].file.file_id",
        "messages[0].content[2].image_url.url",
    ]


def test_a_file_makes_its_message_the_one_whose_images_are_read() -> None:
    body = {"model": "blip-large", "messages": [user(image_part()), user(FILE), user(text_part("a"))]}
    parsed = parse_chat(json.dumps(body).encode(), RouterConfig())
    assert [one.param for one in parsed.images] == ["messages[1].content[0].file.file_id"]
    assert parsed.question.prompt_param == "messages[2].content"
