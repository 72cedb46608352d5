"""Which task a request means: pure text, compared with the sentences of transformers' processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoProcessor

from vlm.errors import InvalidRequest, UnsupportedTask
from vlm.models.florence2.tasks import BY_TOKEN, OFFERED, TASKS, locations, resolve_task
from vlm.types import Box, CaptionLength, Request, Task, TaskResolution

THEIRS: Any = AutoProcessor.from_pretrained(Path(__file__).parents[4] / "miniatures" / "florence-2-base")
GROUND = "<CAPTION_TO_PHRASE_GROUNDING>"

PLAIN_TOKENS = [task.token for task in TASKS if not task.takes_argument]
REGION_TOKENS = [task.token for task in TASKS if task.region]
TEXT_TOKENS = [task.token for task in TASKS if task.takes_argument and not task.region]
LOCATIONS = "<loc_100><loc_200><loc_300><loc_999>"
REGION = Box(0.1, 0.2, 0.3, 1)


def native(prompt: str = "", task: Task | None = None) -> tuple[str, str, TaskResolution]:
    asked = resolve_task(Request(None, prompt, task))
    return asked.task.token, asked.argument, asked.resolution


def sentence(prompt: str) -> str:
    asked = resolve_task(Request(None, prompt))
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
    assert OFFERED == (
        "caption",
        "dense_caption",
        "detect",
        "ground",
        "ocr",
        "ocr_regions",
        "point",
        "region_caption",
        "region_category",
        "region_ocr",
        "region_proposal",
        "segment",
    )


@pytest.mark.parametrize("token", PLAIN_TOKENS)
def test_a_token_by_itself_becomes_the_references_sentence(token: str) -> None:
    assert native(token) == (token, "", "native")
    assert [sentence(token)] == THEIRS._construct_prompts(token)


@pytest.mark.parametrize("token", PLAIN_TOKENS)
@pytest.mark.parametrize("company", ["{} and more", "please {}", "{}{}", "{} <loc_1>"])
def test_a_token_with_other_text_is_refused_as_the_reference_does(token: str, company: str) -> None:
    prompt = company.format(token, token)
    with pytest.raises(ValueError, match="should be the only content"):
        THEIRS._construct_prompts(prompt)
    with pytest.raises(InvalidRequest, match=f"{token} takes no other text") as caught:
        native(prompt)
    assert caught.value.code == "invalid_value"


def test_white_space_is_not_other_text() -> None:
    assert native(" <OD>\n") == ("<OD>", "", "native")


@pytest.mark.parametrize("token", TEXT_TOKENS)
@pytest.mark.parametrize("form", ["{} a red car", "{}a red car", "a red car {}", "{} {{input}}"])
def test_a_token_with_its_argument_becomes_the_references_sentence(token: str, form: str) -> None:
    prompt = form.format(token)
    assert [sentence(prompt)] == THEIRS._construct_prompts(prompt)
    assert native(prompt)[2] == "native"


@pytest.mark.parametrize("token", REGION_TOKENS)
@pytest.mark.parametrize("form", ["{}{}", "{} {}", "{1} {0}"])
def test_a_token_with_its_region_becomes_the_references_sentence(token: str, form: str) -> None:
    prompt = form.format(token, LOCATIONS)
    assert [sentence(prompt)] == THEIRS._construct_prompts(prompt)
    assert native(prompt) == (token, LOCATIONS, "native")


@given(
    token=st.sampled_from(TEXT_TOKENS), text=st.text(max_size=40).filter(lambda text: text.strip() and "<" not in text)
)
def test_any_argument_becomes_the_references_sentence(token: str, text: str) -> None:
    assert [sentence(token + text)] == THEIRS._construct_prompts(token + text)


@pytest.mark.parametrize("token", TEXT_TOKENS)
@pytest.mark.parametrize("form", ["{}", " {} ", "{0}{0}"])
def test_a_missing_argument_is_refused(token: str, form: str) -> None:
    with pytest.raises(InvalidRequest, match=r"needs a (text|label)"):
        native(form.format(token))


@pytest.mark.parametrize("token", REGION_TOKENS)
@pytest.mark.parametrize(
    "argument", ["", "a dog", LOCATIONS[:-1], LOCATIONS + "<loc_5>", LOCATIONS * 2, "<loc_1000>" * 4, f"in {LOCATIONS}"]
)
def test_a_region_is_four_locations_and_the_error_says_that(token: str, argument: str) -> None:
    with pytest.raises(
        InvalidRequest,
        match=f"{token} needs a region: its corners x1, y1, x2, y2 from 0 to 1, or the prompt {token}<loc_x1>",
    ) as caught:
        native(token + argument)
    assert (caught.value.param, caught.value.code) == ("prompt", "invalid_value")
    assert f"{token}<loc_x1>" in caught.value.message


def test_half_a_sentence_is_plain_text() -> None:
    assert native("Locate the phrases in the caption: ") == ("<DETAILED_CAPTION>", "", "plain")


@pytest.mark.parametrize("prompt", ["<CAPTOIN>", "<SEGMENT> a dog", " <X>"])
def test_a_token_that_does_not_exist_is_refused_rather_than_captioned(prompt: str) -> None:
    with pytest.raises(UnsupportedTask, match="has no task '<") as caught:
        native(prompt)
    assert (caught.value.param, caught.value.code) == ("task", "unsupported_task")
    assert all(name in caught.value.message for name in (*OFFERED, *BY_TOKEN))


@pytest.mark.parametrize("task", [task for task in TASKS if not task.takes_argument], ids=lambda task: task.token)
def test_the_references_sentences_are_native(task: Any) -> None:
    assert native(task.sentence) == (task.token, "", "native")


@pytest.mark.parametrize("task", [task for task in TASKS if task.takes_argument], ids=lambda task: task.token)
def test_a_sentence_with_its_argument_is_native(task: Any) -> None:
    argument = LOCATIONS if task.region else "a red car"
    assert native(task.prompt(argument)) == (task.token, argument, "native")


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
        ("What is this?", "<DETAILED_CAPTION>"),
        ("What is the region of France?", "<DETAILED_CAPTION>"),
        ("Locate  in the image.", "<DETAILED_CAPTION>"),
        ("a <b> c < d", "<DETAILED_CAPTION>"),
        ("Describe the image", "<DETAILED_CAPTION>"),
        ("Describe it in one sentence.", "<CAPTION>"),
        ("in more DETAIL, please", "<MORE_DETAILED_CAPTION>"),
        ("Describe it in a paragraph", "<MORE_DETAILED_CAPTION>"),
        ("One Paragraph", "<MORE_DETAILED_CAPTION>"),
        ("What text is in the region <loc_1>?", "<OCR>"),
        ("Read the text.", "<OCR>"),
        ("Where is the text?", "<OCR_WITH_REGION>"),
        ("Detect all objects", "<OD>"),
        ("Describe each object", "<DENSE_REGION_CAPTION>"),
    ],
)
def test_plain_words_ask_for_a_task(words: str, token: str) -> None:
    assert native(words) == (token, "", "plain")


def test_a_prompt_of_another_model_is_the_same_task_here() -> None:
    assert native("<grounding>An image of") == ("<CAPTION>", "", "foreign")
    assert native("<grounding><phrase>a dog</phrase>") == (GROUND, "a dog", "foreign")
    with pytest.raises(UnsupportedTask, match=r"'query', which Florence-2 does not offer\. Models that do: kosmos-2"):
        native("<grounding>Question: What is it? Answer:")


@pytest.mark.parametrize("prompt", ["", "  ", "\n\t"])
def test_no_text_means_the_default(prompt: str) -> None:
    assert native(prompt) == ("<CAPTION>", "", "default")


@pytest.mark.parametrize(
    ("length", "token"),
    [("short", "<CAPTION>"), ("normal", "<DETAILED_CAPTION>"), ("long", "<MORE_DETAILED_CAPTION>")],
)
def test_captions_have_three_lengths(length: CaptionLength, token: str) -> None:
    assert native(task=Task("caption", length=length)) == (token, "", "task")


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("detect", "<OD>"),
        ("ocr", "<OCR>"),
        ("ocr_regions", "<OCR_WITH_REGION>"),
        ("dense_caption", "<DENSE_REGION_CAPTION>"),
        ("region_proposal", "<REGION_PROPOSAL>"),
        ("point", "<OD>"),
    ],
)
def test_named_tasks_without_an_argument(name: str, token: str) -> None:
    assert native(task=Task(name)) == (token, "", "task")


@pytest.mark.parametrize("prompt", ["hello", "<CAPTION>", "<REGION_PROPOSAL>"])
def test_a_named_task_leaves_the_prompt_aside_and_says_so(prompt: str) -> None:
    asked = resolve_task(Request(None, prompt, Task("detect")))
    assert (asked.task.token, asked.ignored) == ("<OD>", ("prompt",))


def test_grounding_takes_its_text_from_the_task_or_else_from_the_prompt() -> None:
    assert native(task=Task("ground", text=" a car ")) == (GROUND, "a car", "task")
    assert native("a car", Task("ground")) == (GROUND, "a car", "task")
    assert native(f"{GROUND} a car", Task("ground")) == (GROUND, "a car", "task")
    both = resolve_task(Request(None, "a dog", Task("ground", text="a car")))
    assert (both.argument, both.ignored) == ("a car", ("prompt",))


@pytest.mark.parametrize("task", [Task("ground"), Task("ground", text="  ")])
def test_grounding_nothing_is_refused(task: Task) -> None:
    with pytest.raises(InvalidRequest, match="needs a text: the phrases") as caught:
        native("", task)
    assert caught.value.param == "task.text"


@pytest.mark.parametrize("name", ["detect", "point"])
def test_one_label_is_looked_for_in_an_open_vocabulary(name: str) -> None:
    asked = resolve_task(Request(None, "hello", Task(name, labels=(" dog ",), text="a")))
    assert (asked.task.token, asked.argument, asked.name) == ("<OPEN_VOCABULARY_DETECTION>", "dog", name)
    assert asked.ignored == ("prompt", "task.text")


@pytest.mark.parametrize("name", ["detect", "point"])
def test_several_labels_are_refused_with_two_ways_out(name: str) -> None:
    with pytest.raises(UnsupportedTask, match=r"one request per label.*'ground'") as caught:
        native(task=Task(name, labels=("dog", "cat")))
    assert (caught.value.param, caught.value.code) == ("task.labels", "unsupported_task")


def test_an_empty_label_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="needs a label: what to look for") as caught:
        native(task=Task("detect", labels=(" ",)))
    assert caught.value.param == "task.labels"


def test_point_is_detection_under_another_name_but_not_the_reverse() -> None:
    assert resolve_task(Request(None, "", Task("point"))).name == "point"
    assert resolve_task(Request(None, "<OD>")).name == "detect"


REGION_TASKS = [
    ("region_caption", "<REGION_TO_DESCRIPTION>"),
    ("region_category", "<REGION_TO_CATEGORY>"),
    ("region_ocr", "<REGION_TO_OCR>"),
    ("segment", "<REGION_TO_SEGMENTATION>"),
]


@pytest.mark.parametrize(("name", "token"), REGION_TASKS)
def test_a_region_becomes_four_locations(name: str, token: str) -> None:
    asked = resolve_task(Request(None, "hello", Task(name, labels=("a",), region=REGION)))
    assert (asked.task.token, asked.argument, asked.name) == (token, LOCATIONS, name)
    assert asked.ignored == ("prompt", "task.labels")


@pytest.mark.parametrize(("name", "token"), REGION_TASKS[:3])
def test_the_prompt_may_hold_the_region_of_a_named_task(name: str, token: str) -> None:
    assert native(LOCATIONS, Task(name)) == (token, LOCATIONS, "task")
    assert native(token + LOCATIONS, Task(name)) == (token, LOCATIONS, "task")


@pytest.mark.parametrize(("name", "token"), REGION_TASKS[:3])
@pytest.mark.parametrize("prompt", ["", "what is this?"])
def test_a_missing_region_is_refused(name: str, token: str, prompt: str) -> None:
    with pytest.raises(
        InvalidRequest,
        match=f"{token} needs a region: its corners x1, y1, x2, y2 from 0 to 1, or the prompt {token}<loc_x1>",
    ) as caught:
        native(prompt, Task(name))
    assert (caught.value.param, caught.value.code) == ("task.region", "invalid_value")


@pytest.mark.parametrize(("name", "token"), REGION_TASKS)
@pytest.mark.parametrize(
    "region", [Box(0.5, 0, 0.5, 1), Box(0, 0.5, 1, 0.5), Box(1, 0, 0, 1), Box(0, 0, 1, float("nan"))]
)
def test_an_empty_region_is_refused(name: str, token: str, region: Box) -> None:
    with pytest.raises(InvalidRequest, match="region is empty: its corners") as caught:
        native("", Task(name, region=region))
    assert (caught.value.param, caught.value.code) == ("task.region", "invalid_value")


def test_a_segment_is_named_by_a_text_or_by_a_region() -> None:
    token = "<REFERRING_EXPRESSION_SEGMENTATION>"
    assert native(task=Task("segment", text="a dog")) == (token, "a dog", "task")
    assert native("a dog", Task("segment")) == (token, "a dog", "task")
    with pytest.raises(InvalidRequest, match="not both") as both:
        native(task=Task("segment", text="a dog", region=REGION))
    with pytest.raises(InvalidRequest, match="a text or a region") as neither:
        native(task=Task("segment"))
    assert (both.value.param, neither.value.param) == ("task.region", "task.text")


SIDE = st.floats(0, 1)


@given(corners=st.tuples(SIDE, SIDE, SIDE, SIDE).filter(lambda c: c[0] < c[2] and c[1] < c[3]))
def test_regions_are_quantised_as_the_reference_does(corners: tuple[float, ...]) -> None:
    """At one pixel a bin: at other sizes the reference's pixels have been rounded before."""
    pixels = torch.tensor([corners], dtype=torch.float64) * 1000
    numbers = THEIRS.post_processor.quantize(pixels, (1000, 1000))[0].tolist()
    assert locations(Box(*corners)) == "".join(f"<loc_{number}>" for number in numbers)


def test_every_bins_lower_edge_and_centre_is_in_it() -> None:
    for number in range(999):
        for value in (number / 1000, (number + 0.5) / 1000):
            assert locations(Box(value, value, 1, 1)) == f"<loc_{number}><loc_{number}><loc_999><loc_999>"


def test_a_region_beyond_the_image_ends_at_its_edge() -> None:
    assert locations(Box(-1, float("-inf"), 2, float("inf"))) == "<loc_0><loc_0><loc_999><loc_999>"


@pytest.mark.parametrize("name", ["query", "track", "<OD>", ""])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(
        UnsupportedTask, match=r"Florence-2 has no task '.*'; it offers: caption, dense_caption, detect"
    ):
        native(task=Task(name))


def test_what_a_task_does_not_use_is_reported() -> None:
    everything = Task("ocr", labels=("dog",), text="a", region=Box(0, 0, 1, 1), length="long")
    assert resolve_task(Request(None, "b", everything)).ignored == (
        "prompt",
        "task.labels",
        "task.text",
        "task.region",
        "task.length",
    )
    assert resolve_task(Request(None, "", Task("caption", length="long"))).ignored == ()
