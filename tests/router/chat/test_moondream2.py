"""Moondream 2 from OpenAI's own client down to a real engine; the small model answers as the original code does."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from typing import Any

import openai
import pytest
from openai import OpenAI

from router.app import create_app
from router.backends.base import LocalBackend
from router.config import RouterConfig
from tests.alike import assert_alike
from tests.images import data_url
from tests.listening import listening
from tests.oracle import MINIATURES
from tests.router.world import image_part, text_part, user
from tests.vlm.models.moondream2.driver import DATA, cases, golden_image
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.loading import load

NAME = "moondream-2"
SMALL, WIDE = "small_224x160", "wide_800x400"
QUESTION = "What color is the circle?"
ORIGINAL = {case["id"]: case for case in cases()}
OTHERS = ("blip-large", "florence-2-base", "kosmos-2")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(load(DATA, dtype="float32"), EngineConfig(max_batch=16, max_waiting=16, cache_bytes=2**26)) as one:
        yield one


@pytest.fixture(scope="module")
def sdk(engine: Engine) -> Iterator[OpenAI]:
    with (
        listening(create_app(LocalBackend({NAME: engine}), RouterConfig())) as address,
        OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60) as client,
    ):
        yield client


@pytest.fixture
def client(sdk: OpenAI, engine: Engine) -> Iterator[OpenAI]:
    """Checks after each test that the engine holds nothing."""
    yield sdk
    patience = time.monotonic() + 10
    while (stats := engine.stats()).accepted or stats.running or stats.waiting or stats.used_blocks:
        assert time.monotonic() < patience, stats
        time.sleep(0.01)


def request(text: str | None = None, image: str | None = SMALL, **more: Any) -> dict[str, Any]:
    parts = [] if image is None else [image_part(data_url(golden_image(image)))]
    parts += [] if text is None else [text_part(text)]
    own = ("model", "stream", "stream_options", "response_format", "logprobs", "max_tokens", "stop")
    fields: dict[str, Any] = {name: more.pop(name) for name in own if name in more}
    return {"model": NAME, "messages": [user(*parts)], "max_tokens": 48, "extra_body": more, **fields}


def ask(client: OpenAI, text: str | None = None, image: str | None = SMALL, **more: Any) -> Any:
    return client.chat.completions.create(**request(text, image, **more))


def message(client: OpenAI, text: str | None = None, image: str | None = SMALL, **more: Any) -> Any:
    return ask(client, text, image, **more).choices[0].message


def original_answer(case: str, key: str = "answer") -> str:
    return str(ORIGINAL[case]["result"][key]).strip()


# Captions and questions


@pytest.mark.parametrize(("length", "case"), [("short", "c00"), ("normal", "c01"), ("long", "c02")])
def test_captions_of_three_lengths(client: OpenAI, length: str, case: str) -> None:
    answer = message(client, task={"name": "caption", "length": length})
    assert answer.content == answer.grounding["text"] == original_answer(case, "caption")
    assert answer.grounding["reasoning"] is None
    assert not hasattr(answer, "reasoning_content")


def test_no_text_means_a_caption_and_text_is_a_question(client: OpenAI) -> None:
    caption, question = ask(client), ask(client, QUESTION)
    assert caption.choices[0].message.content == original_answer("c01", "caption")
    assert question.choices[0].message.content == original_answer("c09")
    assert [one.x_gigarouter["task_resolution"] for one in (caption, question)] == ["default", "plain"]


def test_a_question_in_the_task_or_in_the_message(client: OpenAI) -> None:
    within = message(client, task={"name": "query", "text": QUESTION})
    beside = message(client, QUESTION, task="query")
    assert within.content == beside.content == original_answer("c09")


def test_a_question_without_an_image(client: OpenAI) -> None:
    answer = ask(client, "how many trees are in the picture?", image=None)
    reply = answer.choices[0].message
    assert reply.content == original_answer("c28")
    assert (reply.grounding["task"], reply.grounding["images"], reply.grounding["objects"]) == ("query", [], [])
    assert answer.usage.prompt_tokens_details.image_tokens == 0
    assert answer.x_gigarouter["image_cache"] is None


def test_a_second_question_does_not_encode_the_image_again(client: OpenAI, engine: Engine) -> None:
    ask(client, "first")
    encoded = engine.stats().images_encoded
    answer = ask(client, "second")
    assert engine.stats().images_encoded == encoded
    assert answer.x_gigarouter["image_cache"] == "hit"
    assert answer.usage.prompt_tokens_details.cached_tokens == 730


# Reasoning


@pytest.mark.parametrize(("image", "case"), [(None, "c30"), (SMALL, "c14")])
def test_the_reasoning_stands_beside_the_answer(client: OpenAI, image: str | None, case: str) -> None:
    task = {"name": "query", "text": "is there a dog", "reasoning": True}
    answer = ask(client, image=image, task=task, max_tokens=97)
    reply, expected = answer.choices[0].message, ORIGINAL[case]["result"]["reasoning"]
    assert reply.reasoning_content == reply.grounding["reasoning"] == expected["text"]
    assert reply.content == reply.grounding["text"]
    assert reply.content.startswith(original_answer(case))
    points = [tuple(point) for part in expected["grounding"] for point in part["points"]]
    assert [tuple(found["point"]) for found in reply.grounding["objects"]] == [
        pytest.approx(point, abs=1e-6) for point in points
    ]
    for found in reply.grounding["objects"]:
        [(start, end)] = found["spans"]
        assert reply.reasoning_content[start:end].strip() == (found["label"] or "")
    details = answer.usage.completion_tokens_details
    assert 0 < details.reasoning_tokens < answer.usage.completion_tokens


@pytest.mark.parametrize(
    ("image", "form"), [(None, None), (SMALL, None), (SMALL, {"type": "json_object"})], ids=["blind", "words", "json"]
)
def test_the_reasoning_is_streamed_before_the_answer(client: OpenAI, image: str | None, form: Any) -> None:
    """Without an image, the reasoning about "is there a dog" ends in a space, which belongs to it."""
    task = {"name": "query", "text": "is there a dog", "reasoning": True}
    fields: dict[str, Any] = {"image": image, "task": task, "max_tokens": 97}
    fields |= {} if form is None else {"response_format": form}
    whole = ask(client, **fields)
    reply = whole.choices[0].message
    *chunks, last = ask(client, **fields, stream=True, stream_options={"include_usage": True})
    deltas = [chunk.choices[0].delta for chunk in chunks]
    kinds = ["t" if hasattr(one, "reasoning_content") else "a" for one in deltas if one.content or not one.role]
    assert re.fullmatch("t+a+", "".join(kinds))
    assert "".join(getattr(one, "reasoning_content", "") for one in deltas) == reply.reasoning_content
    assert_alike("".join(one.content or "" for one in deltas), reply.content)
    assert_alike(deltas[-1].grounding, reply.grounding)
    assert last.usage.completion_tokens_details == whole.usage.completion_tokens_details


def test_the_sdk_assembles_the_reasoning(client: OpenAI) -> None:
    fields: dict[str, Any] = {"task": {"name": "query", "text": "is there a dog", "reasoning": True}, "max_tokens": 97}
    reply = message(client, **fields)
    with client.chat.completions.stream(**request(**fields)) as stream:
        final: Any = stream.get_final_completion().choices[0].message
    assert (final.reasoning_content, final.content) == (reply.reasoning_content, reply.content)
    assert_alike(final.grounding, reply.grounding)


def test_every_token_has_its_log_probability_also_in_the_reasoning(client: OpenAI) -> None:
    fields: dict[str, Any] = {"task": {"name": "query", "text": "is there a dog", "reasoning": True}, "logprobs": True}
    whole = ask(client, **fields)
    chunks = list(ask(client, **fields, stream=True))
    streamed = [token for chunk in chunks for token in getattr(chunk.choices[0], "token_ids", None) or []]
    assert streamed == whole.choices[0].token_ids
    assert len(whole.choices[0].logprobs.content) == whole.usage.completion_tokens


def test_a_stop_string_ends_the_answer_but_not_the_reasoning(client: OpenAI) -> None:
    fields: dict[str, Any] = {"task": {"name": "query", "text": "is there a dog", "reasoning": True}, "max_tokens": 97}
    reply = message(client, **fields)
    stop = reply.reasoning_content[:3]
    stopped = message(client, **fields, stop=[stop])
    assert stopped.reasoning_content == reply.reasoning_content
    assert stopped.content == reply.content.partition(stop)[0].strip()


# References and objects


@pytest.mark.parametrize(
    ("references", "case"),
    [
        ([{"point": [0.25, 0.625]}], "c33"),
        ([{"point_px": [200, 250]}], "c33"),
        ([{"box": [0.1, 0.2, 0.5, 0.9]}, {"point": [0.7, 0.3]}], "c34"),
        ([{"box_px": [80, 80, 400, 360]}, {"point_px": [560, 120]}], "c34"),
    ],
)
def test_a_question_about_references(client: OpenAI, references: list[Any], case: str) -> None:
    answer = ask(client, image=WIDE, task={"name": "query", "text": QUESTION, "references": references})
    assert answer.choices[0].message.content == original_answer(case)
    assert answer.x_gigarouter["ignored"] == []


def test_references_in_pixels_are_the_same_as_normalised_ones(client: OpenAI) -> None:
    """Equal prompts give equal reasoning, to the letter."""

    def reasoned(reference: Any) -> tuple[str, str]:
        task = {"name": "query", "text": QUESTION, "references": [reference], "reasoning": True}
        reply = message(client, task=task)
        return reply.reasoning_content, reply.content

    assert reasoned({"point_px": [56, 40]}) == reasoned({"point": [0.25, 0.25]}) != reasoned({"point": [1, 1]})
    assert reasoned({"box_px": [0, 40, 112, 160]}) == reasoned({"box": [0, 0.25, 0.5, 1]})


@pytest.mark.parametrize(("name", "case"), [("detect", "c37"), ("point", "c38")])
def test_objects_equal_those_of_the_original(client: OpenAI, name: str, case: str) -> None:
    reply = message(client, task={"name": name, "labels": ["circle"], "max_objects": 10})
    result = ORIGINAL[case]["result"]
    if name == "detect":
        expected = [[max(0.0, min(1.0, one[key])) for key in CORNERS] for one in result["objects"]]
        found = [one["box"] for one in reply.grounding["objects"]]
    else:
        expected = [[one["x"], one["y"]] for one in result["points"]]
        found = [one["point"] for one in reply.grounding["objects"]]
    assert found == [pytest.approx(one, abs=2e-6) for one in expected]
    assert len(json.loads(reply.content)["objects"]) == len(found) > 1
    assert {(one["label"], one["score_type"]) for one in reply.grounding["objects"]} == {("circle", "token_prob")}


CORNERS = ("x_min", "y_min", "x_max", "y_max")


@pytest.mark.parametrize("name", ["detect", "point"])
def test_each_label_is_searched_for_separately(client: OpenAI, name: str) -> None:
    labels = ["circle", "red square", "dog"]
    alone = [
        found
        for label in labels
        for found in message(client, task={"name": name, "labels": [label], "max_objects": 3}).grounding["objects"]
    ]
    together = message(client, task={"name": name, "labels": labels, "max_objects": 3}).grounding["objects"]
    assert [found["label"] for found in together] == [found["label"] for found in alone]
    assert list(dict.fromkeys(found["label"] for found in together)) == labels
    kind = "box" if name == "detect" else "point"
    assert [found[kind] for found in together] == [found[kind] for found in alone]
    assert all(sum(found["label"] == label for found in together) <= 3 for label in labels)


def test_a_text_is_grounded_as_it_is_detected(client: OpenAI) -> None:
    ground = message(client, task={"name": "ground", "text": "circle", "max_objects": 2}).grounding
    detect = message(client, task={"name": "detect", "labels": ["circle"], "max_objects": 2}).grounding
    assert [one["box"] for one in ground["objects"]] == [one["box"] for one in detect["objects"]]
    assert (ground["task"], ground["native_task"]) == ("ground", "detect")


@pytest.mark.parametrize("stream", [False, True])
def test_several_tasks_of_one_image(client: OpenAI, engine: Engine, stream: bool) -> None:
    reasoning_query = {"name": "query", "text": "is there a dog", "reasoning": True}
    tasks: list[Any] = [{"name": "detect", "labels": ["circle", "dog"], "max_objects": 2}, reasoning_query, "caption"]
    encoded = engine.stats().images_encoded
    if stream:
        with client.chat.completions.stream(**request(tasks=tasks, max_tokens=97)) as events:
            answer: Any = events.get_final_completion()
    else:
        answer = ask(client, tasks=tasks, max_tokens=97)
    assert engine.stats().images_encoded <= encoded + 1
    reply = answer.choices[0].message
    detected, reasoned, caption = reply.grounding["parts"]
    assert len(detected["objects"]) == 4
    assert answer.choices[0].finish_reason == "stop"
    assert (reply.reasoning_content, reply.content) == (reasoned["reasoning"], reasoned["text"])
    assert reasoned["reasoning"] == ORIGINAL["c14"]["result"]["reasoning"]["text"]
    assert caption["text"] == original_answer("c01", "caption")


# Unused and bad arguments


def test_arguments_that_a_caption_does_not_use_are_reported(client: OpenAI) -> None:
    useless = {"reasoning": True, "references": [{"point": [0, 0]}], "threshold": 0.5, "max_objects": 3}
    answer = ask(client, task={"name": "caption", **useless})
    assert set(answer.x_gigarouter["ignored"]) == {f"task.{name}" for name in useless}
    assert not hasattr(answer.choices[0].message, "reasoning_content")


def task_of(name: str, **more: Any) -> dict[str, Any]:
    return {"task": {"name": name, **more}}


def blind(**fields: Any) -> dict[str, Any]:
    """Fields of a request without an image."""
    return {"image": None, **fields}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param", "reply"),
    [
        (task_of("detect", labels=["a"], max_objects=0), "task.max_objects", "at least 1"),
        (task_of("query", text="?", references=[{"point": [1.1, 0]}]), "task.references[0].point[0]", "1"),
        (task_of("query", text="?", references=[{"point_px": [0, 163]}]), "task.references[0].point_px", "224 x 160"),
        (blind(**task_of("query", text="?", references=[{"point_px": [0, 1]}])), "messages", "needs an image"),
        (blind(**task_of("query", text="?", references=[{"point": [0, 1]}])), "messages", "needs an image"),
        (blind(**task_of("detect", labels=["dog"])), "messages", "needs an image"),
        (blind(tasks=["caption"]), "messages", "needs an image"),
        (blind(), "messages", "needs an image for the task 'caption'"),
        (task_of("detect"), "task.labels", "needs labels: what to look for"),
        (task_of("query"), "task.text", "a text: the question"),
        (task_of("ocr"), "task", "offers: caption, detect, ground, point, query"),
        ({"num_beams": 2}, "num_beams", "no beam search"),
        (task_of("query", text="why " * 1000), "messages[0].content", "maximum context length is 2048 tokens"),
    ],
)
def test_bad_requests_name_their_fault(
    client: OpenAI, fields: dict[str, Any], param: str, reply: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, stream=stream, **fields)
    assert caught.value.param == param
    assert reply in caught.value.message
    assert ask(client, "next").choices[0].message.grounding


def test_a_missing_image_is_an_error_that_says_how_to_send_one() -> None:
    few = EngineConfig(max_batch=1, cache_bytes=2**26)
    with ExitStack() as stack:
        engines = {name: stack.enter_context(Engine(load(MINIATURES / name), few)) for name in OTHERS}
        address = stack.enter_context(listening(create_app(LocalBackend(engines), RouterConfig())))
        sdk = stack.enter_context(OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0))
        for name, stream in product(OTHERS, (False, True)):
            with pytest.raises(openai.BadRequestError) as caught:
                ask(sdk, "a", image=None, model=name, stream=stream)
            assert (caught.value.param, caught.value.code) == ("messages", "invalid_value")
            assert "needs an image. Send it as an image_url part of a user message." in caught.value.message
