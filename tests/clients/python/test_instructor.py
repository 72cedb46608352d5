"""Instructor, in its JSON modes; its default mode calls a tool, which these models cannot."""

from __future__ import annotations

from typing import Any

import openai
import pytest

instructor = pytest.importorskip("instructor")

from tests.clients.python import world  # noqa: E402  # after the skip
from tests.clients.python.shapes import Detection, Text  # noqa: E402
from tests.clients.python.stub import Stub  # noqa: E402

MODES = pytest.mark.parametrize("mode", ["JSON", "JSON_SCHEMA", "MD_JSON"])


def client(url: str, mode: str | None, kind: Any = openai.OpenAI) -> Any:
    chosen = {} if mode is None else {"mode": instructor.Mode[mode]}
    return instructor.from_openai(kind(base_url=url, api_key="any"), **chosen)


def asked(model: str, shape: Any, *messages: Any, **fields: Any) -> dict[str, Any]:
    return {"model": model, "response_model": shape, "messages": list(messages), "max_retries": 0, **fields}


@MODES
def test_objects(url: str, mode: str) -> None:
    found = client(url, mode).create(**asked("florence-2-base", Detection, world.user("<OD>")))
    assert [one.label for one in found.objects] == ["circle", "square"]


@MODES
def test_a_task_beside_instructors_own_words(url: str, mode: str) -> None:
    task = {"extra_body": {"task": {"name": "detect", "labels": ["square"]}}}
    found = client(url, mode).create(**asked("florence-2-base", Detection, world.user("Find it."), **task))
    assert [one.label for one in found.objects] == ["square"]


@pytest.mark.parametrize("mode", ["JSON", "JSON_SCHEMA"])
def test_a_text(url: str, mode: str) -> None:
    """``MD_JSON`` cannot: it asks for JSON in plain words, which are part of the question."""
    found = client(url, mode).create(**asked("moondream-2", Text, world.user(world.QUESTION)))
    assert found.text == world.ANSWER


def test_instructors_image(url: str) -> None:
    content = ["<OD>", instructor.Image.from_path(world.IMAGE)]
    found = client(url, "JSON").create(**asked("florence-2-base", Detection, {"role": "user", "content": content}))
    assert [one.label for one in found.objects] == ["circle", "square"]


def test_a_partial_stream(url: str) -> None:
    *_, last = client(url, "JSON").create_partial(**asked("florence-2-base", Detection, world.user("<OD>")))
    assert [one.label for one in last.objects] == ["circle", "square"]


def test_the_default_mode_is_refused_in_words(url: str) -> None:
    with pytest.raises(Exception, match=r"does not support tools.*JSON schema instead"):
        client(url, None).create(**asked("florence-2-base", Detection, world.user("<OD>")))


def test_a_mistake_is_not_retried(stub: Stub) -> None:
    with pytest.raises(Exception, match="not an image"):
        client(f"{stub.url}/v1", "JSON").create(
            **{**asked("florence-2-base", Detection, world.user("<OD>", world.BROKEN_IMAGE)), "max_retries": 3}
        )
    assert len(stub.calls) == 1


@pytest.mark.anyio
async def test_async(url: str) -> None:
    eye = client(url, "JSON", openai.AsyncOpenAI)
    found = await eye.create(**asked("florence-2-base", Detection, world.user("<OD>")))
    assert [one.label for one in found.objects] == ["circle", "square"]
