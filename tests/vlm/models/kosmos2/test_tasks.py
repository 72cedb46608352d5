"""Which prompt a request becomes."""

from __future__ import annotations

import pytest

from vlm.errors import InvalidRequest, UnsupportedTask
from vlm.models.kosmos2.tasks import BRIEF, DETAILED, OFFERED, ResolvedTask, resolve_task
from vlm.types import Box, Request, Task

REGION = Box(0.3, 0.1, 0.6, 0.7)
REGION_PROMPT = "<grounding><phrase>It</phrase><object><patch_index_0105><patch_index_0723></object> is"


def asked(prompt: str = "", task: Task | None = None) -> ResolvedTask:
    return resolve_task(Request(b"", prompt, task))


@pytest.mark.parametrize("prompt", ["", "  ", "\n"])
def test_nothing_means_a_brief_grounded_caption(prompt: str) -> None:
    assert asked(prompt) == ResolvedTask("caption", BRIEF, None, "default")


@pytest.mark.parametrize(("length", "prompt"), [("short", BRIEF), ("normal", DETAILED), ("long", DETAILED)])
def test_captions_have_two_lengths(length: str, prompt: str) -> None:
    found = asked("", Task("caption", length=length))  # type: ignore[arg-type]  # one of three literals
    assert (found.prompt, found.echo, found.resolution, found.ignored) == (prompt, length == "short", "task", ())


def test_plain_text_are_a_question() -> None:
    found = asked(" What is it? ")
    assert (found.task, found.resolution, found.echo) == ("query", "plain", False)
    assert found.prompt == "Question: What is it? Answer:"
    assert found.parts == ("Question: ", "What is it?", " Answer:")


@pytest.mark.parametrize(
    ("prompt", "task"),
    [
        ("<grounding>An image of", "caption"),
        ("<grounding> Describe this image in detail:", "caption"),
        ("An image of", "caption"),
        ("Describe this image in detail:", "caption"),
        ("Question: What is it? Answer:", "query"),
        ("<grounding> Question: What is it? Answer:", "query"),
        ("<grounding><phrase> a snowman</phrase>", "ground"),
        ("<phrase>a snowman</phrase>", "ground"),
        (REGION_PROMPT, "region_caption"),
        ("<grounding><phrase> a dog</phrase> and<phrase> a cat</phrase>", "caption"),
        ("<grounding> {} and", "caption"),
    ],
)
def test_prompts_of_the_card_and_prompts_with_tags_pass_verbatim(prompt: str, task: str) -> None:
    found = asked(prompt)
    assert (found.task, found.prompt, found.resolution, found.echo) == (task, prompt, "native", True)
    assert found.parts == (prompt, "", "")


@pytest.mark.parametrize("prompt", ["An image of what?", "</s>", "<image>", "<patch_index_1024>", "Question: why"])
def test_what_is_not_a_prompt_of_the_card_is_a_question(prompt: str) -> None:
    assert asked(prompt).prompt == f"Question: {prompt} Answer:"


def test_a_phrase_is_grounded() -> None:
    found = asked("a red circle", Task("ground"))
    assert (found.prompt, found.echo) == ("<grounding><phrase>a red circle</phrase>", True)
    assert asked("", Task("ground", text="{}")).prompt == "<grounding><phrase>{}</phrase>"


def test_one_label_is_detected() -> None:
    assert asked("", Task("detect", labels=("dog",))).prompt == "<grounding><phrase>dog</phrase>"


@pytest.mark.parametrize("labels", [(), ("dog", "cat"), (" ",)])
def test_no_label_and_several_are_errors(labels: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest, match="needs labels: what to look for") as caught:
        asked("", Task("detect", labels=labels))
    assert caught.value.param == "task.labels"


def test_a_region_is_described() -> None:
    assert asked("", Task("region_caption", region=REGION)).prompt == REGION_PROMPT


def test_the_tasks_own_text_wins_over_the_prompt() -> None:
    found = asked("a dog", Task("query", text="What is it?"))
    assert found.prompt == "Question: What is it? Answer:"
    assert found.ignored == ("prompt",)


@pytest.mark.parametrize(
    ("name", "ignored"),
    [
        ("caption", ("prompt", "task.labels", "task.text", "task.region")),
        ("detect", ("prompt", "task.text", "task.region", "task.length")),
        ("ground", ("prompt", "task.labels", "task.region", "task.length")),
        ("query", ("prompt", "task.labels", "task.region", "task.length")),
        ("region_caption", ("prompt", "task.labels", "task.text", "task.length")),
    ],
)
def test_what_a_task_does_not_use_is_reported(name: str, ignored: tuple[str, ...]) -> None:
    task = Task(name, labels=("a",), text="b", region=REGION, length="long")
    assert asked("words", task).ignored == ignored


@pytest.mark.parametrize("name", ["ocr", "segment", "CAPTION", ""])
def test_another_task_is_refused_with_the_list_of_those_offered(name: str) -> None:
    with pytest.raises(UnsupportedTask, match=f"it offers: {', '.join(OFFERED)}") as caught:
        asked("", Task(name))
    assert (caught.value.param, caught.value.code) == ("task", "unsupported_task")


def test_a_prompt_of_another_model_is_the_same_task_here() -> None:
    found = asked("<CAPTION>")
    assert (found.prompt, found.resolution) == (BRIEF, "foreign")
    found = asked("<OPEN_VOCABULARY_DETECTION> a dog")
    assert (found.task, found.prompt) == ("detect", "<grounding><phrase>a dog</phrase>")
    with pytest.raises(UnsupportedTask, match="'ocr' without an argument, which Kosmos-2 does not offer"):
        asked("<OCR>")
