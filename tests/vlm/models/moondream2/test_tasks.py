"""Which task a request means."""

from __future__ import annotations

import pytest

from vlm.errors import InvalidRequest, UnsupportedTask
from vlm.models.moondream2.tasks import MAX_OBJECTS, OFFERED, ResolvedTask, resolve_task
from vlm.types import Box, Point, Request, Task

SPOT = Point(0.25, 0.5)


def asked(prompt: str = "", task: Task | None = None, image: bytes | None = b"") -> ResolvedTask:
    return resolve_task(Request(image, prompt, task))


@pytest.mark.parametrize("prompt", ["", "  ", "\n"])
def test_nothing_means_a_caption(prompt: str) -> None:
    assert asked(prompt) == ResolvedTask("caption", "caption", "", "default")


@pytest.mark.parametrize("prompt", ["What is it?", " a <b> ", "<|md_reserved_2|>"])
def test_a_prompt_is_a_question_letter_for_letter(prompt: str) -> None:
    assert asked(prompt) == ResolvedTask("query", "query", prompt, "plain")
    assert asked(prompt, image=None).task == "query"


@pytest.mark.parametrize("length", ["short", "normal", "long"])
def test_captions_have_three_lengths(length: str) -> None:
    found = asked("", Task("caption", length=length))  # type: ignore[arg-type]  # one of three literals
    assert (found.length, found.text, found.resolution, found.ignored) == (length, "", "task", ())


def test_another_length_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="short, normal or long"):
        asked("", Task("caption", length="tiny"))  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("name", ["detect", "point"])
def test_one_label_is_looked_for(name: str) -> None:
    found = asked("", Task(name, labels=(" red square",)))
    assert (found.native, found.text, found.max_objects) == (name, " red square", MAX_OBJECTS)
    assert asked("", Task(name, labels=("a",), max_objects=3)).max_objects == 3


def test_a_phrase_is_grounded_by_detection() -> None:
    for found in (asked("", Task("ground", text="a dog")), asked("a dog", Task("ground"))):
        assert (found.task, found.native, found.text) == ("ground", "detect", "a dog")


@pytest.mark.parametrize("labels", [(), ("dog", "cat"), (" ",)])
def test_no_label_and_several_are_errors(labels: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest, match="needs labels: what to look for") as caught:
        asked("", Task("detect", labels=labels))
    assert caught.value.param == "task.labels"


@pytest.mark.parametrize("most", [0, -1])
def test_at_least_one_object_is_looked_for(most: int) -> None:
    with pytest.raises(InvalidRequest, match="at least 1") as caught:
        asked("", Task("point", labels=("a",), max_objects=most))
    assert caught.value.param == "task.max_objects"


def test_a_question_may_have_reasoning_and_references() -> None:
    found = asked("", Task("query", text="What?", reasoning=True, references=(SPOT, Box(0, 0, 1, 1))))
    assert (found.reasoning, found.references, found.ignored) == (True, (SPOT, Box(0, 0, 1, 1)), ())


def test_only_a_question_without_references_needs_no_image() -> None:
    assert asked("", Task("query", text="What?", reasoning=True), image=None).reasoning
    for task in (
        Task("caption"),
        Task("detect", labels=("a",)),
        Task("ground", text="a"),
        Task("point", labels=("a",)),
        Task("query", text="a", references=(SPOT,)),
    ):
        with pytest.raises(InvalidRequest, match="needs an image") as caught:
            asked("", task, image=None)
        assert caught.value.param == "image"
    with pytest.raises(InvalidRequest, match="needs an image for the task 'caption'"):
        asked("", image=None)


@pytest.mark.parametrize(
    ("name", "used"),
    [
        ("caption", {"length"}),
        ("detect", {"labels", "max_objects", "threshold"}),
        ("ground", {"text", "max_objects", "threshold"}),
        ("point", {"labels", "max_objects", "threshold"}),
        ("query", {"text", "reasoning", "references", "threshold"}),
    ],
)
def test_what_a_task_does_not_use_is_reported(name: str, used: set[str]) -> None:
    task = Task(
        name, labels=("a",), text="b", region=Box(0, 0, 1, 1), length="long", max_objects=2, reasoning=True,
        references=(SPOT,), threshold=0.5,
    )  # fmt: skip
    every = ["labels", "text", "region", "length", "max_objects", "reasoning", "references", "threshold"]
    assert asked("words", task).ignored == ("prompt", *(f"task.{field}" for field in every if field not in used))


def test_a_question_uses_a_threshold_only_for_the_points_of_its_reasoning() -> None:
    assert asked("", Task("query", text="a", threshold=0.5)).ignored == ("task.threshold",)
    assert asked("", Task("query", text="a", threshold=0.5, reasoning=True)).ignored == ()


@pytest.mark.parametrize("name", ["ocr", "segment", "CAPTION", ""])
def test_another_task_is_refused_with_the_list_of_those_offered(name: str) -> None:
    with pytest.raises(UnsupportedTask, match=f"it offers: {', '.join(OFFERED)}") as caught:
        asked("", Task(name))
    assert (caught.value.param, caught.value.code) == ("task", "unsupported_task")


def test_a_prompt_of_another_model_is_the_same_task_here() -> None:
    assert asked("<MORE_DETAILED_CAPTION>") == ResolvedTask("caption", "caption", "", "foreign", length="long")
    assert asked(" <OPEN_VOCABULARY_DETECTION> a dog ") == ResolvedTask("detect", "detect", "a dog", "foreign")
    assert asked("<grounding>Question: Why? Answer:") == ResolvedTask("query", "query", "Why?", "foreign")


@pytest.mark.parametrize("prompt", ["<OD>", "<OCR>", "<REFERRING_EXPRESSION_SEGMENTATION> a dog"])
def test_a_task_that_only_another_model_has_is_refused_with_its_name(prompt: str) -> None:
    with pytest.raises(UnsupportedTask, match=r"Moondream 2 does not offer\. Models that do: florence-2-base"):
        asked(prompt)


def test_a_prompt_of_another_model_in_company_is_not_read_as_words() -> None:
    with pytest.raises(InvalidRequest, match="<OD> takes no other text"):
        asked("<OD> and more")
