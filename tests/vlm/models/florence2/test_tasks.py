"""Which task a request means: pure text, compared with the sentences of transformers' processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoProcessor

from vlm.models.florence2.tasks import BY_TOKEN, OFFERED, TASKS, understand
from vlm.types import Box, CaptionLength, InvalidRequest, Request, Task, TaskResolution, UnsupportedTask

THEIRS: Any = AutoProcessor.from_pretrained(Path(__file__).parents[4] / "miniatures" / "florence-2-base")
GROUND = "<CAPTION_TO_PHRASE_GROUNDING>"

PLAIN_TOKENS = [task.token for task in TASKS if task.offered and not task.takes_argument]
LATER_TOKENS = [task.token for task in TASKS if not task.offered]


def native(prompt: str = "", task: Task | None = None) -> tuple[str, str, TaskResolution]:
    asked = understand(Request(None, prompt, task))
    return asked.task.token, asked.argument, asked.resolution


def sentence(prompt: str) -> str:
    asked = understand(Request(None, prompt))
    return asked.task.prompt(asked.argument)


def test_the_table_is_the_references() -> None:
    with_argument = {task.token: task.sentence for task in TASKS if task.takes_argument}
    without = {task.token: task.sentence for task in TASKS if not task.takes_argument}
    assert with_argument == THEIRS.task_prompts_with_input
    assert without == THEIRS.task_prompts_without_inputs
    assert len(BY_TOKEN) == len(TASKS) == 15


def test_the_table_groups_answers_as_the_reference_parses_them() -> None:
    ours = {task.token: task.answer for task in TASKS}
    theirs = THEIRS.tasks_answer_post_processing_type
    for token, answer in ours.items():
        same = {other for other in ours if theirs[other] == theirs[token]}
        assert same == {other for other in ours if ours[other] == answer}


def test_these_tasks_are_offered() -> None:
    assert OFFERED == ("caption", "detect", "ground", "ocr", "ocr_regions")


@pytest.mark.parametrize("token", PLAIN_TOKENS)
def test_a_token_alone_becomes_the_references_sentence(token: str) -> None:
    assert native(token) == (token, "", "native")
    assert [sentence(token)] == THEIRS._construct_prompts(token)


@pytest.mark.parametrize("token", PLAIN_TOKENS)
@pytest.mark.parametrize("company", ["{} and more", "please {}", "{}{}", "{} <loc_1>"])
def test_a_token_with_company_is_refused_as_the_reference_does(token: str, company: str) -> None:
    prompt = company.format(token, token)
    with pytest.raises(ValueError, match="should be the only content"):
        THEIRS._construct_prompts(prompt)
    with pytest.raises(InvalidRequest, match=f"{token} takes no other text") as caught:
        native(prompt)
    assert caught.value.code == "invalid_value"


def test_white_space_is_no_company() -> None:
    assert native(" <OD>\n") == ("<OD>", "", "native")


@pytest.mark.parametrize(
    "prompt", [f"{GROUND} a red car", f"{GROUND}a red car", f"a red car {GROUND}", f"{GROUND} {{input}}"]
)
def test_a_token_with_its_argument_becomes_the_references_sentence(prompt: str) -> None:
    assert [sentence(prompt)] == THEIRS._construct_prompts(prompt)
    assert native(prompt)[2] == "native"


@given(text=st.text(max_size=40).filter(lambda text: text.strip() and "<" not in text))
def test_any_argument_becomes_the_references_sentence(text: str) -> None:
    assert [sentence(GROUND + text)] == THEIRS._construct_prompts(GROUND + text)


@pytest.mark.parametrize("prompt", [GROUND, f" {GROUND} ", GROUND * 2])
def test_a_missing_argument_is_refused(prompt: str) -> None:
    with pytest.raises(InvalidRequest, match="needs the text"):
        native(prompt)


def test_half_a_sentence_is_plain_words() -> None:
    assert native("Locate the phrases in the caption: ") == ("<CAPTION>", "", "plain")


@pytest.mark.parametrize("token", LATER_TOKENS)
def test_a_task_of_later_is_refused_with_the_list_of_those_offered(token: str) -> None:
    for prompt in (token, f"{token} a dog"):
        with pytest.raises(UnsupportedTask) as caught:
            native(prompt)
        assert (caught.value.param, caught.value.code) == ("task", "unsupported_task")
        assert all(name in caught.value.message for name in OFFERED)
        assert token not in caught.value.message.partition("offers")[2]


@pytest.mark.parametrize("prompt", ["<CAPTOIN>", "<SEGMENT> a dog", " <X>"])
def test_a_token_that_does_not_exist_is_refused_rather_than_captioned(prompt: str) -> None:
    with pytest.raises(UnsupportedTask, match="There is no task <"):
        native(prompt)


@pytest.mark.parametrize("task", [task for task in TASKS if not task.takes_argument], ids=lambda task: task.token)
def test_the_references_sentences_are_native(task: Any) -> None:
    if task.offered:
        assert native(task.sentence) == (task.token, "", "native")
    else:
        with pytest.raises(UnsupportedTask, match=task.token):
            native(task.sentence)


def test_a_sentence_with_its_argument_is_native() -> None:
    assert native("Locate the phrases in the caption: a red car") == (GROUND, "a red car", "native")


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.token)
@given(argument=st.text(max_size=20))
def test_sentence_and_argument_are_inverse(task: Any, argument: str) -> None:
    assert task.argument(task.prompt(argument)) == (argument if task.takes_argument else "")


def test_overlapping_ends_of_a_sentence_are_no_argument() -> None:
    assert BY_TOKEN["<OPEN_VOCABULARY_DETECTION>"].argument("Locate  in the image.") == ""
    assert BY_TOKEN["<OPEN_VOCABULARY_DETECTION>"].argument("Locate in the image.") is None


@pytest.mark.parametrize(
    ("words", "token"),
    [
        ("What is this?", "<CAPTION>"),
        ("Locate a dog in the image.", "<CAPTION>"),
        ("a <b> c < d", "<CAPTION>"),
        ("Describe the picture", "<DETAILED_CAPTION>"),
        ("in more DETAIL, please", "<DETAILED_CAPTION>"),
        ("Describe it in a paragraph", "<MORE_DETAILED_CAPTION>"),
        ("One Paragraph", "<MORE_DETAILED_CAPTION>"),
    ],
)
def test_plain_words_mean_a_caption(words: str, token: str) -> None:
    assert native(words) == (token, "", "plain")


@pytest.mark.parametrize("prompt", ["", "  ", "\n\t"])
def test_no_words_mean_the_default(prompt: str) -> None:
    assert native(prompt) == ("<CAPTION>", "", "default")


@pytest.mark.parametrize(
    ("length", "token"),
    [("short", "<CAPTION>"), ("normal", "<DETAILED_CAPTION>"), ("long", "<MORE_DETAILED_CAPTION>")],
)
def test_captions_have_three_lengths(length: CaptionLength, token: str) -> None:
    assert native(task=Task("caption", length=length)) == (token, "", "task")


@pytest.mark.parametrize(
    ("name", "token"), [("detect", "<OD>"), ("ocr", "<OCR>"), ("ocr_regions", "<OCR_WITH_REGION>")]
)
def test_named_tasks_without_an_argument(name: str, token: str) -> None:
    assert native(task=Task(name)) == (token, "", "task")


@pytest.mark.parametrize("prompt", ["hello", "<CAPTION>", "<REGION_PROPOSAL>"])
def test_a_named_task_leaves_the_prompt_aside_and_says_so(prompt: str) -> None:
    asked = understand(Request(None, prompt, Task("detect")))
    assert (asked.task.token, asked.ignored) == ("<OD>", ("prompt",))


def test_grounding_takes_its_text_from_the_task_or_else_from_the_prompt() -> None:
    assert native(task=Task("ground", text=" a car ")) == (GROUND, "a car", "task")
    assert native("a car", Task("ground")) == (GROUND, "a car", "task")
    assert native(f"{GROUND} a car", Task("ground")) == (GROUND, "a car", "task")
    both = understand(Request(None, "a dog", Task("ground", text="a car")))
    assert (both.argument, both.ignored) == ("a car", ("prompt",))


@pytest.mark.parametrize("task", [Task("ground"), Task("ground", text="  ")])
def test_grounding_nothing_is_refused(task: Task) -> None:
    with pytest.raises(InvalidRequest, match="needs the text") as caught:
        native("", task)
    assert caught.value.param == "task.text"


def test_detecting_given_labels_points_to_grounding() -> None:
    with pytest.raises(UnsupportedTask, match="'ground'") as caught:
        native(task=Task("detect", labels=("dog",)))
    assert caught.value.code == "unsupported_task"


@pytest.mark.parametrize("name", ["query", "point", "segment", "region_ocr", "<OD>", ""])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedTask, match="Florence-2 offers: caption, detect"):
        native(task=Task(name))


def test_what_a_task_does_not_use_is_reported() -> None:
    everything = Task("ocr", labels=("dog",), text="a", region=Box(0, 0, 1, 1), length="long")
    assert understand(Request(None, "b", everything)).ignored == (
        "prompt",
        "task.labels",
        "task.text",
        "task.region",
        "task.length",
    )
    assert understand(Request(None, "", Task("caption", length="long"))).ignored == ()
