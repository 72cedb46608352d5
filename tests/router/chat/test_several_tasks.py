"""Several tasks and several labels from OpenAI's own client down to a real engine."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from router.app import create_app
from router.backends.base import LocalBackend
from router.config import RouterConfig
from tests.alike import assert_alike, unscored
from tests.images import data_url, hand_drawn
from tests.listening import listening
from tests.oracle import MINIATURES
from tests.router.world import image_part, text_part, user
from tests.vlm.engine.world import assert_empty
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.loading import load

FLORENCE = "florence-2-base"
LABELS = ["circle", "square"]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(load(MINIATURES / FLORENCE), EngineConfig(max_batch=8, max_waiting=12, cache_bytes=2**26)) as one:
        yield one


@pytest.fixture(scope="module")
def url(engine: Engine) -> Iterator[str]:
    with listening(create_app(LocalBackend({FLORENCE: engine}), RouterConfig())) as address:
        yield f"{address}/v1"


@pytest.fixture
def client(url: str, engine: Engine) -> Iterator[OpenAI]:
    with OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as sdk:
        yield sdk
    assert_empty(engine)


def request(text: str | None = None, **extra: Any) -> dict[str, Any]:
    parts = [image_part(data_url(hand_drawn())), *([] if text is None else [text_part(text)])]
    fields: dict[str, Any] = {
        name: extra.pop(name) for name in ("stream", "stream_options", "response_format") if name in extra
    }
    return {"model": FLORENCE, "messages": [user(*parts)], "extra_body": extra, **fields}


def create(client: OpenAI, text: str | None = None, **extra: Any) -> Any:
    return client.chat.completions.create(**request(text, **extra))


def grounding(client: OpenAI, **extra: Any) -> Any:
    return create(client, **extra).choices[0].message.grounding


TASKS: list[Any] = [
    {"name": "detect", "labels": LABELS},
    "caption",
    {"name": "ocr_regions"},
    {"name": "ground", "text": "a red circle"},
]


def test_one_choice_with_the_text_and_every_grounding(client: OpenAI, engine: Engine) -> None:
    encoded = engine.stats().images_encoded
    answer = create(client, tasks=TASKS)
    assert engine.stats().images_encoded <= encoded + 1
    [choice] = answer.choices
    assert [part["task"] for part in choice.message.grounding["parts"]] == [
        "detect",
        "caption",
        "ocr_regions",
        "ground",
    ]
    assert choice.message.content == choice.message.grounding["parts"][1]["text"]
    assert choice.message.grounding["task"] == "detect"
    singles = [create(client, task=task) for task in TASKS]
    alone = [one.choices[0].message.grounding for one in singles]
    assert_alike(choice.message.grounding["parts"], alone)
    assert answer.usage.completion_tokens == sum(one.usage.completion_tokens for one in singles)
    tokens = [one.usage.prompt_tokens_details.image_tokens for one in (answer, *singles)]
    assert len(set(tokens)) == 1
    assert answer.x_gigarouter["task_resolution"] == "task"
    assert answer.x_gigarouter["ignored"] == []


def test_several_labels_are_one_answer(client: OpenAI) -> None:
    both = unscored(grounding(client, task={"name": "detect", "labels": LABELS}))
    singles = [unscored(grounding(client, task={"name": "detect", "labels": [label]})) for label in LABELS]
    objects = [found for single in singles for found in single["objects"]]
    assert both["objects"] == [{**found, "id": index} for index, found in enumerate(objects)]
    assert [found["label"] for found in both["objects"]] == LABELS
    assert (both["native_task"], both["parts"]) == ("<OPEN_VOCABULARY_DETECTION>", [])


@pytest.mark.parametrize("tasks", [TASKS, ["detect", "ocr_regions"]])
def test_a_stream_equals_the_whole_answer(client: OpenAI, tasks: list[Any]) -> None:
    whole = create(client, tasks=tasks)
    message = whole.choices[0].message
    *chunks, last = create(client, tasks=tasks, stream=True, stream_options={"include_usage": True})
    told = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert_alike(told, message.content)
    assert_alike(chunks[-1].choices[0].delta.grounding, message.grounding)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.usage.total_tokens == whole.usage.total_tokens
    with client.chat.completions.stream(**request(tasks=tasks)) as stream:
        final: Any = stream.get_final_completion().choices[0].message
    assert_alike(final.content, message.content)
    assert_alike(final.grounding, message.grounding)


def test_typed_answers_hold_the_parts(client: OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "grounding", "schema": {}}}
    message = create(client, tasks=TASKS, response_format=form).choices[0].message
    assert json.loads(message.content) == message.grounding
    assert len(message.grounding["parts"]) == len(TASKS)


def test_the_messages_text_goes_to_tasks_without_one(client: OpenAI) -> None:
    answer = create(client, "a blue square", tasks=["caption", "ground"])
    assert answer.choices[0].message.grounding["parts"][1]["text"] == "a blue square"
    assert answer.x_gigarouter["ignored"] == []
    assert create(client, "a blue square", tasks=["caption", "ocr"]).x_gigarouter["ignored"] == ["messages[0].content"]


def test_arguments_that_the_model_does_not_use_are_reported(client: OpenAI) -> None:
    useless = {"reasoning": True, "max_objects": 3, "references": [{"point": [0, 0]}], "threshold": 0.5}
    answer = create(client, task={"name": "caption", **useless})
    assert set(answer.x_gigarouter["ignored"]) == {f"task.{name}" for name in useless}
    answer = create(client, tasks=["caption", {"name": "caption", **useless}])
    assert set(answer.x_gigarouter["ignored"]) == {f"tasks[1].{name}" for name in useless}


def test_a_region_in_pixels_is_the_same_region(client: OpenAI) -> None:
    shares = grounding(client, task={"name": "region_category", "region": {"box": [0.125, 0.25, 0.4375, 0.6875]}})
    pixels = grounding(client, task={"name": "region_category", "region": {"box_px": [80, 120, 280, 330]}})
    assert_alike(pixels, shares)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("tasks", "code", "param"),
    [
        (["caption", "fly"], "unsupported_task", "tasks[1]"),
        (["caption", "raw"], "unsupported_task", "tasks[1]"),
        (["caption", {"name": "detect", "labels": LABELS}, {"name": "segment"}], "invalid_value", "tasks[2].text"),
        ([{"name": "region_ocr", "region": {"box": [0.5, 0, 0.5, 1]}}], "invalid_value", "tasks[0].region"),
        ([{"name": "detect", "labels": [f"{n}" for n in range(21)]}], "invalid_value", "tasks"),
        ([], "invalid_value", "tasks"),
    ],
)
def test_one_bad_task_is_a_bad_request(client: OpenAI, tasks: Any, code: str, param: str, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, tasks=tasks, stream=stream)
    assert (caught.value.code, caught.value.param) == (code, param)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_disconnects_frees_every_task(client: OpenAI, engine: Engine, stream: bool) -> None:
    """The ``client`` fixture checks afterwards that the engine holds nothing."""
    before = threading.active_count()

    async def leaves(delay: float) -> None:
        async with AsyncOpenAI(base_url=client.base_url, api_key="none", max_retries=0) as sdk:
            asked = sdk.chat.completions.create(**request(tasks=TASKS * 4, stream=stream))
            task: asyncio.Task[object] = asyncio.create_task(asked)
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.wait([task])

    for delay in (0.02, 0.05, 0.1):
        asyncio.run(leaves(delay))
    assert_empty(engine)
    assert threading.active_count() <= before + 1
    assert create(client, task="detect").choices[0].message.content
