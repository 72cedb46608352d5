"""Native prompts as other models understand them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm.errors import InvalidRequest, UnsupportedTask
from vlm.models.cards import PromptCard, cards
from vlm.models.florence2.tasks import TASKS
from vlm.models.florence2.tasks import resolve_task as resolve_florence2
from vlm.models.kosmos2.tasks import resolve_task as resolve_kosmos2
from vlm.models.native_prompts import foreign_task, native_prompt
from vlm.types import Request, Task

PROMPTS = [(card.name, prompt) for card in cards().values() for prompt in card.prompts]


def written(prompt: PromptCard) -> str:
    argument = "<loc_1><loc_2><loc_3><loc_4>" if prompt.argument == "region" else "a red car"
    return prompt.prompt.replace("...", argument)


@pytest.mark.parametrize(("model", "prompt"), PROMPTS, ids=lambda one: getattr(one, "prompt", one))
def test_a_card_says_what_its_own_model_does(model: str, prompt: PromptCard) -> None:
    request = Request(b"", written(prompt))
    resolved = resolve_florence2(request) if model == "florence-2-base" else resolve_kosmos2(request)
    assert resolved.resolution == "native"
    assert (resolved.task.name if not isinstance(resolved.task, str) else resolved.task) == prompt.task
    assert prompt.task in {task.name for task in cards()[model].tasks}
    assert (prompt.length is not None) == (prompt.task == "caption")
    assert (prompt.argument != "") == ("..." in prompt.prompt)


def test_every_native_prompt_of_a_card_is_among_its_prompts() -> None:
    for card in cards().values():
        known = [prompt.prompt.replace(" ", "") for prompt in card.prompts]
        for native in (native for task in card.tasks for native in task.native if "patch_index" not in native):
            assert any(prompt.startswith(native.replace(" ", "")) for prompt in known), native
    tokens = {prompt.prompt.partition(" ")[0] for prompt in cards()["florence-2-base"].prompts}
    assert tokens == {task.token for task in TASKS}


@pytest.mark.parametrize(
    ("text", "prompt", "argument"),
    [
        ("<OD>", "<OD>", ""),
        (" <OD>\n", "<OD>", ""),
        ("<CAPTION_TO_PHRASE_GROUNDING>a car", "<CAPTION_TO_PHRASE_GROUNDING> ...", "a car"),
        ("<grounding> An  image of", "<grounding>An image of", ""),
        ("<grounding> Question: What is it? Answer:", "<grounding>Question: ... Answer:", "What is it?"),
        ("<grounding> <phrase> a dog </phrase>", "<grounding><phrase>...</phrase>", "a dog"),
        ("<REGION_TO_OCR><loc_1> <loc_2>", "<REGION_TO_OCR> ...", "<loc_1> <loc_2>"),
    ],
)
def test_a_native_prompt_is_known_by_itself(text: str, prompt: str, argument: str) -> None:
    found = native_prompt(text)
    assert found is not None
    assert (found.card.prompt, found.argument) == (prompt, argument)


@pytest.mark.parametrize(
    "text",
    ["", "OD", "<OD> and more", "please <OD>", "<OD><OD>", "<CAPTION_TO_PHRASE_GROUNDING> ", "<X>", "<b>bold</b>", "<"],
)
def test_other_texts_are_none(text: str) -> None:
    assert native_prompt(text) is None


@given(st.text())
def test_no_text_without_a_tag_is_taken_for_a_prompt(text: str) -> None:
    if "<" not in text:
        assert native_prompt(text) is None
        assert foreign_task("moondream2", text) is None


def test_a_model_without_a_card_offers_nothing() -> None:
    with pytest.raises(UnsupportedTask, match="'caption' without an argument, which nosuch does not offer"):
        foreign_task("nosuch", "<CAPTION>")


def test_a_region_in_anothers_tokens_is_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidRequest, match="send the task 'region_caption' with a region"):
        foreign_task("kosmos2", "<REGION_TO_DESCRIPTION><loc_1><loc_2><loc_3><loc_4>")


@pytest.mark.parametrize("text", ["<OD> and more", "what does <OD> mean?"])
def test_a_token_in_company_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="<OD> takes no other text"):
        foreign_task("moondream2", text)


def test_half_a_prompt_is_refused_with_its_forms() -> None:
    with pytest.raises(InvalidRequest, match="<grounding> is part of a prompt that must be all of the text"):
        foreign_task("moondream2", "<grounding>An image of a")


def test_the_argument_becomes_the_tasks() -> None:
    assert foreign_task("moondream2", "<OPEN_VOCABULARY_DETECTION> a dog") == Task("detect", labels=("a dog",))
    assert foreign_task("moondream2", "<grounding><phrase>a dog</phrase>") == Task("ground", text="a dog")
    assert foreign_task("moondream2", "<MORE_DETAILED_CAPTION>") == Task("caption", length="long")
