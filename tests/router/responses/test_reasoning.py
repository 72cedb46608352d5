"""``reasoning.effort``: which requests it makes reason, and where it is reported as unused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.router.responses.clients import asked, read
from vlm.errors import InvalidRequest
from vlm.models.cards import cards
from vlm.types import Task

EFFORT = "reasoning.effort"


def test_a_question_in_plain_words() -> None:
    built = read(asked("What is it?", model="moondream-2", reasoning={"effort": "low"}))
    assert (built.request.task, built.request.prompt) == (Task("query", text="What is it?", reasoning=True), "")
    assert built.head.meta.resolution == "plain"
    assert built.asked.ignored == ()


@pytest.mark.parametrize(
    ("fields", "task", "resolution"),
    [
        ({"task": "query"}, Task("query", reasoning=True), None),
        ({"task": {"name": "query", "text": "Why?"}}, Task("query", text="Why?", reasoning=True), None),
        ({"model": "moondream-2:query"}, Task("query", text="What is it?", reasoning=True), "model"),
    ],
)
def test_a_task_that_is_a_question(fields: dict[str, Any], task: Task, resolution: str | None) -> None:
    built = read(asked("What is it?", **{"model": "moondream-2", "reasoning": {"effort": "high"}, **fields}))
    assert (built.request.task, built.head.meta.resolution, built.asked.ignored) == (task, resolution, ())


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("What is it?", {"model": "blip-large"}),
        ("What is it?", {"model": "kosmos-2"}),
        ("What is it?", {"model": "somebodys/own"}),
        ("<OD>", {}),
        (None, {}),
        (" ", {}),
        ("What is it?", {"task": "caption"}),
        ("What is it?", {"tasks": ["query"]}),
    ],
)
def test_what_cannot_reason_is_answered_without(text: str | None, fields: dict[str, Any]) -> None:
    plain = {"model": "moondream-2", **fields}
    built = read(asked(text, reasoning={"effort": "medium"}, **plain))
    assert built.request == read(asked(text, **plain)).request
    assert built.asked.ignored[-1] == EFFORT


@pytest.mark.parametrize("effort", [None, "none", "minimal"])
def test_no_effort_is_no_reasoning(effort: str | None) -> None:
    built = read(asked("What is it?", model="moondream-2", reasoning={"effort": effort}))
    assert (built.request.task, built.asked.ignored) == (None, ())


def test_a_task_may_ask_for_it_as_in_chat() -> None:
    task = {"name": "query", "reasoning": True}
    assert read(asked("?", model="moondream-2", task=task)).request.task == Task("query", reasoning=True)


def test_an_older_revision_that_cannot_reason_says_so() -> None:
    error = InvalidRequest("This revision has no reasoning.", "task.reasoning", "invalid_value")
    built = read(asked("What is it?", model="moondream-2", reasoning={"effort": "low"}))
    assert built.located(error).param == EFFORT
    named = read(asked("What is it?", model="moondream-2", task={"name": "query", "reasoning": True}))
    assert named.located(error).param == "task.reasoning"


def test_models_that_can_reason_have_questions() -> None:
    reasoning = [card for card in cards().values() if card.reasoning]
    assert reasoning
    assert all("query" in {task.name for task in card.tasks} for card in reasoning)


def test_a_summary_is_reported_where_nothing_reasons() -> None:
    for model, ignored in (("moondream-2", ()), ("blip-large", (EFFORT, "reasoning.summary"))):
        built = read(asked("What is it?", model=model, reasoning={"effort": "low", "summary": "auto"}))
        assert built.head.meta.ignored == ignored


@pytest.mark.parametrize("effort", ["none", "minimal"])
def test_an_effort_of_none_is_overruled_by_the_task(effort: str) -> None:
    for fields in ({"task": {"name": "query", "reasoning": True}}, {"tasks": [{"name": "query", "reasoning": True}]}):
        built = read(asked("?", model="moondream-2", reasoning={"effort": effort}, **fields))
        assert built.asked.ignored == (EFFORT,)
