"""OpenAI's own client asks for responses, on a real port."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response
from pydantic import BaseModel

from router.conversation.answer import ResponseOptions, grounding_of
from tests.router.conftest import Live
from tests.router.responses.clients import asked, input_text, user
from tests.router.world import BALL, geometry, script, with_reasoning, words
from vlm.errors import EngineFailure, InvalidImage, ModelNotReady, Overloaded
from vlm.types import Chunk, Completion, TopLogprob


@pytest.fixture(params=[False, True], ids=["lenient", "strict"])
def client(live: Live, request: pytest.FixtureRequest) -> Iterator[OpenAI]:
    """A client, and one that holds every answer and every event against OpenAI's types."""
    live.backend.steps = script(words())
    live.backend.pause_s = 0.0
    with OpenAI(
        base_url=f"{live.url}/v1", api_key="none", max_retries=0, timeout=20, _strict_response_validation=request.param
    ) as sdk:
        yield sdk


def create(client: OpenAI, **fields: Any) -> Any:
    return client.responses.create(**{**asked(), **fields})


COMPLETIONS = [words(), words("a ball", BALL), geometry(), with_reasoning()]


def test_create(client: OpenAI) -> None:
    answer = create(client, instructions="Be brief.", metadata={"trace": "1"}, max_output_tokens=50)
    assert isinstance(answer, Response)
    assert (answer.output_text, answer.status, answer.error) == ("a red square", "completed", None)
    assert (answer.instructions, answer.metadata, answer.max_output_tokens) == ("Be brief.", {"trace": "1"}, 50)
    assert answer.usage is not None
    assert answer.usage.total_tokens == 583
    assert answer._request_id
    assert answer.model_extra is not None
    assert answer.model_extra["x_gigarouter"]["request_id"] == answer._request_id


def test_grounding_is_an_attribute_of_the_message(client: OpenAI, live: Live) -> None:
    live.backend.steps = [Chunk(completion=geometry())]
    answer = create(client, model="florence-2-base", extra_body={"task": "detect"})
    assert answer.output[0].grounding == grounding_of(geometry(), ResponseOptions())
    assert json.loads(answer.output_text)["objects"][0]["box_px"] == [64.0, 96.0, 320.0, 288.0]
    task = live.backend.asked[-1][1].task
    assert task is not None
    assert task.name == "detect"


def test_a_text_alone(client: OpenAI, live: Live) -> None:
    assert client.responses.create(model="blip-large", input="hi").output_text == "a red square"
    assert live.backend.asked[-1][1].prompt == "hi"


def test_logprobs(client: OpenAI, live: Live) -> None:
    step = (TopLogprob(11, -0.5, b"a"),)
    live.backend.steps = script(replace(words(), top_logprobs=(step,) * 3))
    part = create(client, include=["message.output_text.logprobs"], top_logprobs=1).output[0].content[0]
    assert [entry.logprob for entry in part.logprobs] == [-0.5, -0.25, -0.125]
    assert part.logprobs[0].top_logprobs[0].token == "a"
    events = list(create(client, include=["message.output_text.logprobs"], top_logprobs=1, stream=True))
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert [entry.logprob for event in deltas for entry in event.logprobs] == [-0.5, -0.25, -0.125]


@pytest.mark.parametrize("completion", COMPLETIONS)
def test_stream(client: OpenAI, live: Live, completion: Completion) -> None:
    live.backend.steps = script(completion)
    events = list(create(client, stream=True))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert text == events[-1].response.output_text == create(client).output_text
    assert events[-1].response.output[-1].grounding == grounding_of(completion, ResponseOptions())
    assert events[-1].response.x_gigarouter["task_resolution"]


@pytest.mark.parametrize("completion", COMPLETIONS)
def test_the_stream_helper_assembles_the_answer(client: OpenAI, live: Live, completion: Completion) -> None:
    live.backend.steps = script(completion)
    with client.responses.stream(**asked()) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final: Any = stream.get_final_response()
    whole = create(client)
    assert snapshots[-1] == final.output_text == whole.output_text
    assert final.output[-1].grounding == whole.output[-1].grounding
    assert final.usage == whole.usage


def test_reasoning(client: OpenAI, live: Live) -> None:
    live.backend.steps = script(with_reasoning())
    reasoning, message = create(client).output
    assert (reasoning.type, reasoning.summary, reasoning.content[0].text) == (
        "reasoning", [], "A shape, red, of four sides.",
    )  # fmt: skip
    assert message.content[0].text == "a red square"
    events = list(create(client, stream=True, reasoning={"summary": "auto"}))
    deltas = [event.delta for event in events if event.type == "response.reasoning_summary_text.delta"]
    assert "".join(deltas) == events[-1].response.output[0].summary[0].text == "A shape, red, of four sides."


class Found(BaseModel):
    label: str | None
    box: list[float] | None


class Answer(BaseModel):
    objects: list[Found]


class Text(BaseModel):
    text: str


def test_parse_returns_a_typed_object(client: OpenAI, live: Live) -> None:
    live.backend.steps = script(geometry())
    answer = client.responses.parse(**asked(), text_format=Answer)
    assert answer.output_parsed is not None
    assert [one.label for one in answer.output_parsed.objects] == ["ball", "kite"]
    assert answer.output[0].model_extra == {"grounding": grounding_of(geometry(), ResponseOptions())}
    with client.responses.stream(**asked(), text_format=Answer) as stream:
        assert stream.get_final_response().output_parsed == answer.output_parsed


def test_parse_of_a_text(client: OpenAI) -> None:
    assert client.responses.parse(**asked(), text_format=Text).output_parsed == Text(text="a red square")


def test_an_answer_can_be_sent_back(client: OpenAI, live: Live) -> None:
    live.backend.steps = script(with_reasoning())
    first = create(client)
    history = [*asked()["input"], *(one.to_dict() for one in first.output), user(input_text("And the colour?"))]
    assert create(client, input=history).x_gigarouter["ignored"] == ["input[1]", "input[2]"]
    model, request = live.backend.asked[-1]
    assert (model, request.prompt, request.image is None) == ("blip-large", "And the colour?", False)


def test_a_cut_answer(client: OpenAI, live: Live) -> None:
    live.backend.steps = script(replace(words(), finish_reason="length"))
    answer = create(client)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert list(create(client, stream=True))[-1].type == "response.incomplete"


@pytest.mark.parametrize(
    ("fields", "kind", "expected"),
    [
        ({"temperature": 3}, openai.BadRequestError, ("invalid_value", "temperature")),
        ({"model": "gpt-4o"}, openai.NotFoundError, ("model_not_found", "model")),
        ({"previous_response_id": "resp_1"}, openai.BadRequestError, ("unsupported_parameter", "previous_response_id")),
        ({"input": [user({"type": "input_image", "file_id": "file-1"})]}, openai.BadRequestError,
         ("image_file_not_found", "input[0].content[0].file_id")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_refusals_by_class(
    client: OpenAI, fields: Any, kind: type[openai.APIStatusError], expected: tuple[str, str], stream: bool
) -> None:
    with pytest.raises(kind) as caught:
        create(client, stream=stream, **fields)
    assert (caught.value.code, caught.value.param) == expected
    assert caught.value.request_id


@pytest.mark.parametrize("error", [Overloaded("Full."), ModelNotReady("Not yet."), EngineFailure("Broken.")])
def test_failures_by_class(client: OpenAI, live: Live, error: Exception) -> None:
    live.backend.steps = [error]
    with pytest.raises(openai.InternalServerError) as caught:
        create(client)
    assert caught.value.type == "server_error"


def collect(stream: Any, seen: list[Any]) -> None:
    for event in stream:
        seen.append(event)  # noqa: PERF402  what came before an error is kept


@pytest.mark.parametrize("error", [EngineFailure("Broken."), InvalidImage("Broken.", None, "image_parse_error")])
def test_an_error_in_a_stream_is_raised_after_the_response_has_failed(
    client: OpenAI, live: Live, error: Exception
) -> None:
    live.backend.steps = [Chunk("a"), error]
    seen: list[Any] = []
    with pytest.raises(openai.APIError, match="Broken") as caught:
        collect(create(client, stream=True), seen)
    assert caught.value.code in {"engine_failure", "image_parse_error"}
    assert (seen[-1].type, seen[-1].response.status) == ("response.failed", "failed")
    with client.responses.stream(**asked()) as helper, pytest.raises(openai.APIError, match="Broken"):
        helper.get_final_response()


def test_earlier_responses(client: OpenAI) -> None:
    for call in (client.responses.retrieve, client.responses.cancel, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError, match="not stored") as caught:
            call("resp_1")
        assert caught.value.code == "response_not_found"
    with pytest.raises(openai.NotFoundError, match="not stored"):
        client.responses.delete("resp_1")


def test_clients_skip_keep_alive_comments(client: OpenAI, live: Live) -> None:
    live.backend.pause_s = 0.25
    assert [event.type for event in create(client, stream=True)][-1] == "response.completed"


@pytest.mark.anyio
async def test_the_asynchronous_client(live: Live) -> None:
    live.backend.steps, live.backend.pause_s = script(with_reasoning()), 0.0
    async with AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client:
        async with client.responses.stream(**asked()) as stream:
            final = await stream.get_final_response()
        assert final.output_text == "a red square"
