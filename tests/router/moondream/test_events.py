"""Streams as Moondream's clients read them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.asgi.errors import error_body
from router.config import RouterConfig
from router.moondream.format import MoondreamFormat
from tests.router.moondream.asking import ALL, JPEG, found, polygon, read_stream
from tests.router.world import events, script, with_reasoning, words
from vlm.errors import EngineFailure, VlmError
from vlm.types import Completion

Json = dict[str, Any]


def stream(route: str, completion: Completion, failure: VlmError | None = None) -> str:
    """All that is sent, up to an error in place of the last chunk if there is one."""
    moondream = MoondreamFormat(route, RouterConfig())
    built = moondream.build(moondream.parse(json.dumps(ALL[route] | {"stream": True}).encode()), [JPEG], "req_1")
    assert built.stream
    writer = built.event_writer()
    chunks = script(completion) if failure is None else script(completion)[:-1]
    parts = [writer.opening(), *(event for chunk in chunks for event in writer.events(chunk))]
    return b"".join([*parts, *([] if failure is None else [writer.failure(failure)])]).decode()


@pytest.mark.parametrize("route", ["caption", "query"])
def test_pieces_and_then_the_end_with_what_it_cost(route: str) -> None:
    first, second, last = events(stream(route, words("a red square")))
    assert first == {"chunk": "a", "completed": False, "request_id": "req_1"}
    assert second == {"chunk": " red square", "completed": False, "request_id": "req_1"}
    assert last.keys() == {"chunk", "completed", "request_id", "finish_reason", "metrics", "x_gigarouter"}
    assert (last["chunk"], last["completed"], last["finish_reason"]) == ("", True, "stop")


def test_what_a_client_reads_is_the_whole_answer() -> None:
    text = stream("caption", words("ein roter\nquadratischer Würfel ☃"))
    assert "".join(read_stream(text.split("\n"))) == "ein roter\nquadratischer Würfel ☃"


def test_reasoning_is_not_taken_for_the_answer() -> None:
    text = stream("query", with_reasoning("A shape, red."))
    assert "".join(read_stream(text.split("\n"))) == "a red square"
    sent = events(text)
    assert "".join(one.get("reasoning_chunk", "") for one in sent) == "A shape, red."
    assert [("reasoning_chunk" in one, "chunk" in one) for one in sent] == [(True, False)] * 3 + [(False, True)] * 3
    assert sent[-1]["reasoning"] == {"text": "A shape, red.", "grounding": []}
    assert "reasoning" not in sent[0]


@pytest.mark.parametrize("route", ["caption", "query", "segment"])
@pytest.mark.parametrize("message", ["The engine failed.", "Two\nlines and\r\n\rmore \ud800."])
def test_an_error_is_an_event_and_then_one_that_no_client_can_overlook(route: str, message: str) -> None:
    error = EngineFailure(message, code="engine_failure")
    sent = stream(route, words("a red square"), error).split("\n\n")
    assert sent.pop() == ""
    assert sent[-1].startswith(f"data: [ERROR] {message.split(maxsplit=1)[0]} ")
    assert "\n" not in sent[-1].replace("\r", "\n")
    expected = error_body(error) | {}
    expected["error"]["message"] = message.replace("\ud800", "?")
    assert json.loads(sent[-2].removeprefix("data: ")) == expected
    with pytest.raises(ValueError, match="Expecting value"):
        list(read_stream(sent))


def test_an_outline_comes_as_box_path_and_final_answer() -> None:
    box, path, final = events(stream("segment", found(polygon(((0.2, 0.4), (0.6, 0.4), (0.5, 0.8))))))
    frame = {"x_min": 0.2, "y_min": 0.4, "x_max": 0.6, "y_max": 0.8}
    assert box == {"type": "bbox", "bbox": frame, "request_id": "req_1"}
    assert path == {"type": "path_delta", "chunk": "M 0 0 L 1 0 L 0.75 1 Z", "completed": False, "request_id": "req_1"}
    assert (final["type"], final["path"], final["bbox"]) == ("final", path["chunk"], frame)
    assert final.keys() == {
        "type", "path", "bbox", "completed", "request_id", "finish_reason", "metrics", "x_gigarouter",
    }  # fmt: skip
