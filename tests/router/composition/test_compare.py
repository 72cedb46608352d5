"""All models at once, over HTTP and through OpenAI's client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
from openai import OpenAI

from router.app import create_app
from tests.clock import run_clocked
from tests.listening import listening
from tests.router.composition.world import CONFIG, NAMES, Models, asking
from tests.router.world import CHAT, Step, check_error, events, geometry, post, script, user, with_reasoning, words
from vlm.errors import EngineFailure, Overloaded
from vlm.types import Chunk

REQUEST = asking("compare", task="caption")
PLAYS: dict[str, Sequence[Step]] = {
    "blip-large": script(words("a square")),
    "florence-2-base": [Chunk.whole(geometry())],
    "kosmos-2": [Overloaded("It is full.")],
    "moondream-2": script(with_reasoning()),
}


@pytest.mark.anyio
async def test_each_model_is_a_choice() -> None:
    models = Models(PLAYS)
    answer = (await post(models, REQUEST, CONFIG)).json()
    assert answer["model"] == "compare"
    assert [(one["index"], one["model"]) for one in answer["choices"]] == [*enumerate(NAMES)]
    contents = [one["message"]["content"] for one in answer["choices"]]
    assert contents[0] == "a square"
    assert contents[1].startswith('{"objects":')
    assert contents[2:] == ["", "a red square"]
    assert answer["choices"][3]["message"]["reasoning_content"]
    assert answer["usage"]["completion_tokens"] == 9
    results = answer["x_gigarouter"]["results"]
    assert [one["model"] for one in results] == [*NAMES]
    assert results[2]["error"] == {"code": "overloaded", "message": "It is full."}
    assert results[2]["usage"] is None
    assert results[0]["usage"] == {"prompt_tokens": 580, "completion_tokens": 3, "total_tokens": 583}
    assert results[0]["cost_usd"] == pytest.approx(0.00005)
    assert models.running == 0


@pytest.mark.anyio
async def test_the_images_are_loaded_once() -> None:
    models = Models()
    await post(models, REQUEST, CONFIG)
    assert len({id(request.image) for _, request in models.asked}) == 1


@pytest.mark.anyio
async def test_all_fail() -> None:
    models = Models({name: [EngineFailure("It broke.")] for name in NAMES})
    check_error(await post(models, REQUEST, CONFIG), 500, "engine_failure", None)


@pytest.mark.anyio
async def test_an_image_at_fault_is_told_once() -> None:
    request = {**REQUEST, "messages": [user({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}})]}
    answer = await post(Models(), request, CONFIG)
    check_error(answer, 400, "invalid_image_format", "messages[0].content[0].image_url.url")


@pytest.mark.anyio
async def test_roles_come_first_and_pieces_as_they_are_made() -> None:
    answer = await post(Models(PLAYS), {**REQUEST, "stream": True, "stream_options": {"include_usage": True}}, CONFIG)
    told = events(answer.text)
    roles = [one["choices"][0] for one in told[:4]]
    assert [(one["index"], one["delta"]["role"]) for one in roles] == [(at, "assistant") for at in range(4)]
    assert all("role" not in one["choices"][0]["delta"] for one in told[4:-1])
    finished = [one["choices"][0] for one in told if one["choices"] and one["choices"][0]["finish_reason"]]
    assert [(one["index"], one["model"]) for one in finished] == [*enumerate(NAMES)]
    assert told[-1]["usage"]["completion_tokens"] == 9
    assert told[-2]["x_gigarouter"]["results"][2]["error"]["code"] == "overloaded"


def test_it_takes_as_long_as_the_slowest() -> None:
    models = Models(pauses_s={name: 1.0 + at for at, name in enumerate(NAMES)})

    async def ask() -> httpx.Response:
        return await post(models, REQUEST, CONFIG)

    results = run_clocked(ask()).json()["x_gigarouter"]["results"]
    assert [one["latency_ms"] for one in results] == pytest.approx([3000, 6000, 9000, 12000], abs=1)


@pytest.mark.anyio
async def test_a_client_that_leaves_stops_all() -> None:
    import asyncio

    models = Models(pauses_s=dict.fromkeys(NAMES, 10.0))
    app = create_app(models, CONFIG)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router") as http:
        asked = asyncio.create_task(http.post(CHAT, json=REQUEST))
        while models.running < len(NAMES):
            await asyncio.sleep(0.01)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    assert models.running == 0


# OpenAI's client


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening(create_app(Models(PLAYS), CONFIG)) as found:
        yield found


@pytest.fixture(params=[False, True], ids=["lenient", "strict"])
def client(url: str, request: pytest.FixtureRequest) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20, _strict_response_validation=request.param
    ) as sdk:
        yield sdk


def extra() -> Any:
    return {"extra_body": {"task": "caption"}, "model": "compare", "messages": REQUEST["messages"]}


def test_the_sdk_reads_all_choices(client: OpenAI) -> None:
    answer = client.chat.completions.create(**extra())
    assert [(one.index, one.model) for one in answer.choices] == [*enumerate(NAMES)]


def test_the_sdk_streams_all_choices(client: OpenAI) -> None:
    with client.chat.completions.stream(**extra()) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert [one.message.content for one in final.choices][0::3] == ["a square", "a red square"]
    message: Any = final.choices[1].message
    assert message.grounding["objects"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_has_a_message_of_each_model(client: OpenAI, stream: bool) -> None:
    asked: Any = {
        "model": "compare",
        "input": [{"role": "user", "content": [
            {"type": "input_image", "image_url": REQUEST["messages"][0]["content"][0]["image_url"]["url"],
             "detail": "auto"}]}],
        "extra_body": {"task": "caption"},
    }  # fmt: skip
    if stream:
        with client.responses.stream(**asked) as events_:
            added = [one.output_index for one in events_ if one.type == "response.output_item.added"]
            response: Any = events_.get_final_response()
        assert added == [0, 1, 2, 3, 4]
    else:
        response = client.responses.create(**asked)
    messages = [item for item in response.output if item.type == "message"]
    assert [item.model for item in messages] == [*NAMES]
    assert len({item.id for item in response.output}) == 5
    assert [item.content[0].text for item in messages][0::3] == ["a square", "a red square"]
    assert response.output[3].type == "reasoning"


def test_a_fault_of_ours_ends_the_comparison_at_once() -> None:
    models = Models({"kosmos-2": [ZeroDivisionError("a bug")]}, pauses_s={"blip-large": 30.0})

    async def ask() -> float:
        began = asyncio.get_running_loop().time()
        assert (await post(models, REQUEST, CONFIG)).status_code == 500
        return asyncio.get_running_loop().time() - began

    assert run_clocked(ask()) < 1
    assert models.running == 0


def test_a_model_that_is_late_leaves_the_answers_of_the_others() -> None:
    models = Models(pauses_s={"kosmos-2": 10_000.0})
    answer = run_clocked(post(models, REQUEST, CONFIG))
    assert answer.status_code == 200, answer.text
    errors = [one["error"] and one["error"]["code"] for one in answer.json()["x_gigarouter"]["results"]]
    assert errors == [None, None, "timeout", None]
    assert models.running == 0
