"""Uploads by OpenAI's own client: an image is sent once and asked about many times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

openai = pytest.importorskip("openai")

from tests.clients.python import world  # noqa: E402  # after the skip

# Keys as short as those of the other tests would belong to everybody who sends none.
KEY, ANOTHER = "the first key of the tests of files", "the second key of the tests of files"


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=60) as sdk:
        yield sdk


@pytest.fixture
def uploaded(client: Any) -> Iterator[Any]:
    file = client.files.create(file=world.IMAGE, purpose="vision")
    yield file
    client.files.delete(file.id)


def test_the_life_of_a_file(client: Any) -> None:
    data = world.IMAGE.read_bytes()
    file = client.files.create(file=("seen.png", data), purpose="vision", expires_after=_an_hour())
    assert (file.bytes, file.filename, file.purpose, file.object) == (len(data), "seen.png", "vision", "file")
    assert file.expires_at == file.created_at + 3600
    assert client.files.retrieve(file.id) == file
    assert file.id in [one.id for one in client.files.list(purpose="vision", order="desc")]
    assert client.files.content(file.id).read() == data
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def _an_hour() -> Any:
    return {"anchor": "created_at", "seconds": 3600}


def test_a_response_about_a_file(client: Any, uploaded: Any) -> None:
    content = [{"type": "input_text", "text": world.QUESTION}, {"type": "input_image", "file_id": uploaded.id}]
    for model, answer in (("moondream-2", world.ANSWER), ("blip-large", world.CAPTION)):
        asked = [{"role": "user", "content": content}]
        assert client.responses.create(model=model, input=asked).output_text == answer


def test_a_chat_about_a_file(client: Any, uploaded: Any) -> None:
    for part in (
        {"type": "file", "file": {"file_id": uploaded.id}},
        {"type": "image_url", "image_url": {"file_id": uploaded.id}},
    ):
        answer = client.chat.completions.create(model="blip-large", messages=[{"role": "user", "content": [part]}])
        assert answer.choices[0].message.content == world.CAPTION


def test_a_file_of_somebody_else(url: str, uploaded: Any) -> None:
    with openai.OpenAI(base_url=url, api_key=ANOTHER, max_retries=0) as other:
        with pytest.raises(openai.NotFoundError):
            other.files.retrieve(uploaded.id)
        part = {"type": "file", "file": {"file_id": uploaded.id}}
        with pytest.raises(openai.BadRequestError):
            other.chat.completions.create(model="blip-large", messages=[{"role": "user", "content": [part]}])


def test_what_is_no_image_is_refused(client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(file=("seen.png", b"This is no image."), purpose="vision")
    assert caught.value.code == "invalid_image_format"
