"""Several images in one message: each is asked about, and the answer says which is which."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from router.config import RouterConfig
from router.conversation.request import ConversationRequest
from tests.images import plain
from tests.router.clients import OTHER_URL
from tests.router.world import IMAGE, FakeBackend, body, geometry, image_part, post, read_chat, text_part, user, words
from vlm.engine.merging import across_images
from vlm.errors import InvalidImage, InvalidRequest
from vlm.types import Box, Chunk

OTHER = plain(320, 200)
TWO = user(text_part("Image 1:"), image_part(), text_part("Image 2:"), image_part(OTHER_URL), text_part("<OD>"))


def read(request: dict[str, Any]) -> ConversationRequest:
    return read_chat(json.dumps(request).encode(), RouterConfig())


def test_all_images_of_the_newest_message_with_any_are_the_request() -> None:
    chat = read(body(messages=[user(image_part()), TWO, user(text_part("and now?"))]))
    assert (chat.request.image, chat.request.images) == (None, (IMAGE, OTHER))
    assert chat.image_params == ("messages[1].content[1].image_url.url", "messages[1].content[3].image_url.url")
    chat = read(body(messages=[TWO]))
    assert (chat.request.prompt, chat.ignored) == ("<OD>", ("messages[0].content[0]", "messages[0].content[2]"))


def test_sixteen_images_are_a_request() -> None:
    assert len(read(body(messages=[user(*[image_part()] * 16)])).request.images) == 16


def test_an_error_of_the_model_names_the_image() -> None:
    chat = read(body(messages=[TWO]))
    located = chat.located(InvalidImage("No.", "images[1]", "image_parse_error"))
    assert (located.param, located.message) == ("messages[0].content[3].image_url.url", "No.")
    assert chat.located(InvalidRequest("No.", "image")).message == "No."


def test_pixels_are_those_of_all_images_if_they_have_one_size() -> None:
    task = {"name": "region_caption", "region": {"box_px": [0, 0, 320, 240]}}
    chat = read(body(messages=[user(image_part(), image_part())], task=task))
    assert chat.request.task is not None
    assert chat.request.task.region == Box(0, 0, 0.5, 0.5)


@pytest.mark.anyio
async def test_the_answer_lists_the_images_and_each_object_has_its_own() -> None:
    small = geometry()
    together = across_images([geometry(), replace(small, grounding=replace(small.grounding, image_size=(320, 200)))])
    backend = FakeBackend([Chunk(completion=together)])
    answer = (await post(backend, body(messages=[TWO], grounding_format="coco"))).json()
    message = answer["choices"][0]["message"]
    assert message["grounding"]["images"] == [{"width": 640, "height": 480}, {"width": 320, "height": 200}]
    assert [one["image"] for one in message["grounding"]["objects"]] == [0, 0, 1, 1]
    assert message["grounding"]["objects"][2]["box_px"] == [32.0, 40.0, 160.0, 120.0]
    first, second = message["grounding_format"]["value"]
    assert first[0]["bbox"] == [64.0, 96.0, 256.0, 192.0]
    assert (second[0]["bbox"], second[0]["image_id"]) == ([32.0, 40.0, 128.0, 80.0], 1)
    assert answer["usage"]["prompt_tokens_details"]["image_tokens"] == 2 * 577


@pytest.mark.parametrize(("cached", "expected"), [(0, "miss"), (577, "partial"), (2 * 577, "hit")])
@pytest.mark.anyio
async def test_some_images_may_have_been_encoded_before(cached: int, expected: str) -> None:
    together = across_images([words(), words()])
    together = replace(together, usage=replace(together.usage, cached_tokens=cached))
    answer = (await post(FakeBackend([Chunk(completion=together)]), body(messages=[TWO]))).json()
    assert answer["x_gigarouter"]["image_cache"] == expected
    assert answer["choices"][0]["message"]["content"] == "Image 1: a red square\nImage 2: a red square"
