"""Answers about several images as one; first with answers made by hand, then with a miniature."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.images import hand_drawn
from tests.oracle import MINIATURES, ask_all
from tests.vlm.engine.test_compose import CAPTION, DETECT, a_box, completion
from vlm.engine.compose import complete, merge
from vlm.errors import EngineFailure, InvalidImage, InvalidRequest, VlmError
from vlm.generations import check_generations, generations, is_compound, split
from vlm.grounding_json import objects_json, to_json
from vlm.types import MAX_IMAGES, Completion, Request, Task, Usage

IMAGES = (b"one", b"two", b"three")


def test_one_request_for_each_image() -> None:
    request = Request(None, "hi", images=IMAGES)
    assert is_compound(request)
    assert split(request) == tuple(Request(image, "hi") for image in IMAGES)
    assert generations(request) == 3
    several = Request(None, tasks=(CAPTION, Task("detect", labels=("a", "b"))), images=IMAGES)
    assert generations(several) == 9
    assert [one.tasks for one in split(several)] == [several.tasks] * 3


def test_too_many_generations_of_images_name_them() -> None:
    request = Request(None, task=Task("detect", labels=tuple("abcde")), images=IMAGES * 5)
    with pytest.raises(InvalidRequest, match="takes 75 generations, one for each image, task and label"):
        check_generations(request)


def test_the_limits_of_a_request() -> None:
    assert len(Request(None, images=(b"",) * MAX_IMAGES).images) == 16
    with pytest.raises(InvalidRequest, match="images must hold at most 16"):
        Request(None, images=(b"",) * 17)
    with pytest.raises(InvalidRequest, match="exclude each other"):
        Request(b"", images=(b"",))


def test_texts_are_numbered_lines_and_spans_move_with_them() -> None:
    answers = [completion("a dog", a_box("dog", (2, 5))), completion("a cat\nand a dog", a_box("dog", (12, 15)))]
    together = merge(Request(None, images=IMAGES[:2]), answers)
    assert together.text == together.grounding.text == "Image 1: a dog\nImage 2: a cat\nand a dog"
    [first, second] = together.grounding.detections
    assert (first.image, second.image) == (0, 1)
    assert [together.text[start:end] for one in (first, second) for start, end in one.spans] == ["dog", "dog"]


def test_the_cost_is_that_of_all_images() -> None:
    answers = [completion("a"), replace(completion("b"), finish_reason="length")]
    together = merge(Request(None, images=IMAGES[:2]), answers)
    assert together.usage == Usage(image_tokens=20, text_tokens=6, completion_tokens=4, cached_tokens=20)
    assert (together.finish_reason, together.token_ids) == ("length", (5, 2, 5, 2))


def test_objects_say_in_which_image_they_are_and_have_its_pixels() -> None:
    small, large = completion("", a_box("dog")), completion("", a_box("cat"), a_box("cow"))
    large = replace(large, grounding=replace(large.grounding, image_size=(640, 480)))
    together = merge(Request(None, task=DETECT, images=IMAGES[:2]), [small, large])
    assert (together.text, together.has_text) == ("", False)
    sent = to_json(together.grounding)
    assert sent["images"] == [{"width": 64, "height": 48}, {"width": 640, "height": 480}]
    placed = [(one["id"], one["image"], one["box_px"][2]) for one in sent["objects"]]
    assert placed == [(0, 0, 64), (1, 1, 640), (2, 1, 640)]
    assert [one["image"] for one in objects_json(together.grounding)["objects"]] == [0, 1, 1]
    assert sent["text"] is None


def test_several_tasks_are_each_about_all_images() -> None:
    request = Request(None, tasks=(DETECT, CAPTION), images=IMAGES[:2])
    answers = [
        merge(replace(request, images=()), [completion("", a_box("dog")), completion(f"image {number}")])
        for number in range(2)
    ]
    together = merge(request, answers)
    detected, caption = together.parts
    assert [one.image for one in detected.grounding.detections] == [0, 1]
    assert caption.text == together.text == "Image 1: image 0\nImage 2: image 1"
    assert together.grounding == detected.grounding


def test_spans_are_in_the_reasoning_where_there_is_one() -> None:
    answers = [
        replace(one, grounding=replace(one.grounding, reasoning="It is red."))
        for one in (completion("yes", a_box(None, (6, 9))), completion("no", a_box(None, (6, 9))))
    ]
    grounding = merge(Request(None, images=IMAGES[:2]), answers).grounding
    assert grounding.reasoning == "Image 1: It is red.\nImage 2: It is red."
    spans = [span for one in grounding.detections for span in one.spans]
    assert [grounding.reasoning[start:end] for start, end in spans] == ["red", "red"]


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_every_text_is_found_by_its_span(texts: list[str]) -> None:
    answers = [
        replace(one, has_text=True, grounding=replace(one.grounding, text=text))
        for text in texts
        for one in [completion(text, a_box("x", (0, len(text))))]
    ]
    grounding = merge(Request(None, images=(b"",) * len(texts)), answers).grounding
    assert grounding.text is not None
    assert [grounding.text[slice(*one.spans[0])] for one in grounding.detections] == texts


@pytest.mark.parametrize(
    ("error", "param"),
    [
        (InvalidImage("No.", code="image_parse_error"), "images[1]"),
        (InvalidRequest("No.", "image"), "images[1]"),
        (InvalidRequest("No.", "task.labels"), "task.labels"),
        (EngineFailure("No."), None),
    ],
)
def test_an_error_of_an_image_names_it(error: VlmError, param: str | None) -> None:
    async def ask(request: Request) -> Completion:
        if request.image == b"two":
            raise error
        await asyncio.sleep(60)
        raise AssertionError("the others are cancelled")

    with pytest.raises(type(error)) as caught:
        asyncio.run(complete(Request(None, images=IMAGES), ask))
    assert (caught.value.message, caught.value.param, caught.value.code) == ("No.", param, error.code)


def test_a_miniature_answers_about_each_image_as_it_does_about_that_image_alone() -> None:
    images = (hand_drawn(), hand_drawn(320, 240), hand_drawn())
    for task in (Task("caption"), Task("detect"), Task("detect", labels=("square",))):
        alone = ask_all(MINIATURES / "florence-2-base", [Request(image, task=task) for image in images])
        [together] = ask_all(MINIATURES / "florence-2-base", [Request(None, task=task, images=images)])
        assert together.token_ids == tuple(token for one in alone for token in one.token_ids)
        assert [(one.image, one.box) for one in together.grounding.detections] == [
            (image, found.box) for image, one in enumerate(alone) for found in one.grounding.detections
        ]
        assert together.grounding.image_sizes == ((640, 480), (320, 240), (640, 480))
        if one_text := [one.text for one in alone if one.has_text]:
            assert together.text == "\n".join(f"Image {number}: {text}" for number, text in enumerate(one_text, 1))
