"""The client ``moondream`` from PyPI, as its users call it, down to real engines."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from PIL import Image

from router.app import create_app
from router.config import RouterConfig
from tests.listening import listening
from tests.router.moondream.conftest import World
from tests.router.world import FakeBackend
from tests.vlm.models.moondream2.driver import golden_image
from vlm.errors import EngineFailure
from vlm.types import Chunk

md = pytest.importorskip("moondream", reason="the client is not among the tools: it brings an inference engine along")

IMAGE = Image.open(io.BytesIO(golden_image("small_224x160")))
SHAPES = Image.open(Path(__file__).parents[3] / "examples/circle-and-square.png")
SHORT = {"max_tokens": 24, "temperature": 0}


@pytest.fixture
def model(world: World) -> Any:
    return md.vl(api_key="a-key", endpoint=f"{world.url}/v1")


@pytest.fixture
def florence(world: World) -> Any:
    return md.vl(endpoint=f"{world.url}/v1", model="florence-2-base")


def error_of(call: Callable[[], object]) -> tuple[int, dict[str, Any]]:
    """(status, error object) of a call that is refused."""
    with pytest.raises(HTTPError) as caught:
        call()
    with caught.value as answer:
        return answer.code, json.load(answer)["error"]


def test_captions(model: Any) -> None:
    for length in ("short", "normal", "long"):
        whole = model.caption(IMAGE, length=length, settings=SHORT)["caption"]
        pieces = list(model.caption(IMAGE, length=length, settings=SHORT, stream=True)["caption"])
        assert whole
        assert "".join(pieces) == whole


def test_questions(model: Any) -> None:
    whole = model.query(IMAGE, "is there a dog", settings=SHORT)
    assert whole.keys() == {"answer"}
    assert "".join(model.query(IMAGE, "is there a dog", settings=SHORT, stream=True)["answer"]) == whole["answer"]
    assert model.query(question="is there a dog", settings=SHORT)["answer"]


def test_reasoning_and_locations(model: Any) -> None:
    fields: Any = {"settings": {"max_tokens": 97}, "reasoning": True, "spatial_refs": [[0.5, 0.5], [0, 0, 0.5, 1]]}
    whole = model.query(IMAGE, "is there a dog", **fields)
    assert whole["reasoning"].keys() == {"text", "grounding"}
    for part in whole["reasoning"]["grounding"]:
        assert part.keys() == {"start_idx", "end_idx", "points"}
        assert whole["reasoning"]["text"][part["start_idx"] : part["end_idx"]]
    assert "".join(model.query(IMAGE, "is there a dog", stream=True, **fields)["answer"]) == whole["answer"]


def test_objects_and_points(model: Any) -> None:
    few = {"max_objects": 3}
    objects = model.detect(IMAGE, "dog", settings=few)["objects"]
    points = model.point(IMAGE, "dog", settings=few)["points"]
    assert 0 < len(objects) <= 3
    assert 0 < len(points) <= 3
    assert {tuple(one) for one in objects} == {("x_min", "y_min", "x_max", "y_max")}
    assert {tuple(one) for one in points} == {("x", "y")}
    assert model.point(IMAGE, "dog", settings=few, spatial_refs=[[0.1, 0.2]])["points"] == points


def test_an_encoded_image_and_calls_at_the_same_time(model: Any) -> None:
    image = model.encode_image(IMAGE)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: model.caption(image, settings=SHORT)["caption"], range(8)))
    assert set(answers) == {model.caption(image, settings=SHORT)["caption"]}


def test_outlines(model: Any, florence: Any) -> None:
    status, error = error_of(lambda: model.segment(IMAGE, "circle"))
    assert (status, error["code"]) == (400, "unsupported_task")
    assert "florence-2-base" in error["message"]
    whole = florence.segment(SHAPES, "red circle")
    box, path, final = florence.segment(SHAPES, "red circle", stream=True)
    assert whole.keys() == {"path", "bbox"}
    assert final == {**whole, "completed": True}
    assert (box, path) == ({"bbox": whole["bbox"]}, {"chunk": whole["path"]})


def test_another_model(florence: Any) -> None:
    assert florence.caption(SHAPES, length="short")["caption"]
    assert florence.detect(SHAPES, "circle")["objects"]
    assert florence.point(SHAPES, "circle")["points"]


def test_chat(world: World) -> None:
    model = md.vl(endpoint=f"{world.url}/v1", model="moondream-2")
    part = {"type": "image_url", "image_url": {"url": model.encode_image(IMAGE).image_url}}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "is there a dog"}]}]
    whole = model.chat(messages, settings=SHORT)
    assert whole["message"]["content"] == model.query(IMAGE, "is there a dog", settings=SHORT)["answer"]
    assert whole["finish_reason"] in ("stop", "length")
    assert "".join(model.chat(messages, settings=SHORT, stream=True)["message"]) == whole["message"]["content"]


def test_errors_have_a_status_and_say_what_is_wrong(model: Any, world: World) -> None:
    assert error_of(lambda: model.caption(IMAGE, length="tiny"))[1]["param"] == "length"
    assert error_of(lambda: list(model.caption(IMAGE, length="tiny", stream=True)["caption"]))[0] == 400
    bad = type(model.encode_image(IMAGE))(image_url="data:image/jpeg;base64,AAAA")
    assert error_of(lambda: model.detect(bad, "dog"))[1]["code"] == "invalid_image_format"
    large = Image.effect_noise((1200, 1200), 100)
    assert error_of(lambda: model.detect(large, "dog"))[0] == 413
    unknown = md.vl(endpoint=f"{world.url}/v1", model="moondream3-preview")
    assert error_of(lambda: unknown.point(IMAGE, "dog"))[1]["code"] == "model_not_found"


@pytest.mark.parametrize("failure", [EngineFailure("Broken."), RuntimeError("a bug"), None])
def test_a_stream_that_breaks_off_is_an_exception(failure: Exception | None) -> None:
    backend = FakeBackend([Chunk("a"), *([] if failure is None else [failure])])
    with listening(create_app(backend, RouterConfig())) as url:
        model = md.vl(endpoint=f"{url}/v1", model="florence-2-base")
        pieces = model.caption(IMAGE, stream=True)["caption"]
        assert next(pieces) == "a"
        with pytest.raises(ValueError, match="Failed to parse JSON response from server") as caught:
            next(pieces)
    assert isinstance(caught.value.__cause__, json.JSONDecodeError)
    said = "Broken." if isinstance(failure, EngineFailure) else "The "
    assert caught.value.__cause__.doc.startswith(f"[ERROR] {said}")
