"""Moondream's own client, against the routes of its own format."""

from __future__ import annotations

from typing import Any
from urllib.error import HTTPError

import pytest

moondream = pytest.importorskip("moondream")

from PIL import Image  # noqa: E402  # after the skip

from tests.clients.python import world  # noqa: E402


@pytest.fixture
def client(url: str) -> Any:
    return moondream.vl(endpoint=url, api_key="any", model="moondream-2")


@pytest.fixture
def image() -> Image.Image:
    return Image.open(world.IMAGE)


def test_a_caption(client: Any, image: Image.Image) -> None:
    assert "red circle" in client.caption(image, length="short")["caption"]
    pieces = list(client.caption(image, length="short", stream=True)["caption"])
    assert "".join(pieces) == client.caption(image, length="short")["caption"]
    assert len(pieces) > 1


def test_a_question(client: Any, image: Image.Image) -> None:
    assert client.query(image, world.QUESTION)["answer"] == world.ANSWER
    assert "".join(client.query(image, world.QUESTION, stream=True)["answer"]) == world.ANSWER


def test_an_image_that_is_encoded_once(client: Any, image: Image.Image) -> None:
    encoded = client.encode_image(image)
    assert client.query(encoded, world.QUESTION)["answer"] == world.ANSWER


def test_reasoning(client: Any, image: Image.Image) -> None:
    answer = client.query(image, world.QUESTION, reasoning=True)
    assert answer["answer"] == world.ANSWER
    assert answer["reasoning"]["text"]


def test_objects(client: Any, image: Image.Image) -> None:
    (found,) = client.detect(image, "red circle")["objects"]
    assert found["x_min"] == pytest.approx(75 / 640, abs=0.05)
    assert found["x_max"] == pytest.approx(265 / 640, abs=0.05)
    assert client.detect(image, "green star")["objects"] == []


def test_points(client: Any, image: Image.Image) -> None:
    (found,) = client.point(image, "blue square")["points"]
    assert (found["x"], found["y"]) == (pytest.approx(475 / 640, abs=0.05), pytest.approx(235 / 480, abs=0.05))


def test_settings(client: Any, image: Image.Image) -> None:
    short = client.caption(image, length="normal", settings={"max_tokens": 3, "temperature": 0})["caption"]
    assert 0 < len(short) < len(client.caption(image, length="normal")["caption"])


def test_a_conversation(client: Any) -> None:
    answer = client.chat([world.user(world.QUESTION)])
    assert answer["message"]["content"] == world.ANSWER
    assert answer["finish_reason"] == "stop"
    assert "".join(client.chat([world.user(world.QUESTION)], stream=True)["message"]) == world.ANSWER


def test_a_segment_is_refused(client: Any, image: Image.Image) -> None:
    with pytest.raises(HTTPError) as caught:
        client.segment(image, "red circle")
    assert caught.value.code == 400
    assert b"florence-2-base" in caught.value.read()


def test_a_model_that_is_not_served(url: str, image: Image.Image) -> None:
    with pytest.raises(HTTPError) as caught:
        moondream.vl(endpoint=url, model="moondream3-preview").caption(image)
    assert caught.value.code == 404
