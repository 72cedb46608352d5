"""Whom to ask, and in which order; over HTTP where the request's form matters."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.composition.auto_rules import AutoRule, When
from router.composition.planner import is_latin
from router.config import RouterConfig
from tests.router.composition.world import CONFIG, NAMES, PRICES, Models, asking, routing, said
from tests.router.world import Bad, check_error, post, text_part, user

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("text", "fields", "first"),
    [
        (None, {}, "florence-2-base"),
        ("How many cars are there?", {}, "moondream-2"),
        ("Describe the image.", {}, "florence-2-base"),
        ("Read the text.", {}, "florence-2-base"),
        ("<OCR>", {}, "florence-2-base"),
        (None, {"task": "point"}, "moondream-2"),
        (None, {"task": {"name": "query", "text": "How many?"}}, "moondream-2"),
        (None, {"task": {"name": "query", "text": "How many?"}, "models": ["kosmos-2", "blip-large"]}, "kosmos-2"),
        (None, {"task": "caption", "prefer": "cheap"}, "blip-large"),
        (None, {"task": "detect", "prefer": "cheap"}, "florence-2-base"),
        (None, {"task": "query", "max_price": {"image": 0.001}}, "kosmos-2"),
    ],
)
async def test_auto_asks_the_model_that_suits(text: str | None, fields: dict[str, Any], first: str) -> None:
    models = Models()
    answer = await post(models, asking("auto", text, **fields), CONFIG)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["model"], models.names_asked) == (first, [first])
    assert routing(answer)["mode"] == "auto"
    assert routing(answer)["why"]


async def test_a_model_that_is_not_ready_comes_last() -> None:
    models = Models(not_ready=["moondream-2"])
    assert (await post(models, asking("auto", "How many?"), CONFIG)).json()["model"] == "kosmos-2"


async def test_the_fastest_is_the_one_whose_answers_took_least() -> None:
    """Models that have not answered yet are tried first, in the order of their ranks."""
    models = Models()
    chosen = [(await post(models, asking("auto", prefer="fast"), CONFIG)).json()["model"] for _ in range(2)]
    assert chosen[0] == chosen[1] == "florence-2-base"  # each router starts anew


async def test_rules_of_the_operator_come_before_the_cards() -> None:
    rules = (
        AutoRule(when=When(latin=False), models=("kosmos-2",), why="the operator's reason"),
        AutoRule(when=When(tasks=("caption",), has_text=False), models=("not-served", "blip-large")),
    )
    config = RouterConfig(auto=rules)
    answer = await post(Models(), asking("auto", "猫はどこ?"), config)
    assert (answer.json()["model"], routing(answer)["why"]) == ("kosmos-2", "the operator's reason")
    assert (await post(Models(), asking("auto", task="caption"), config)).json()["model"] == "blip-large"
    assert (await post(Models(), asking("auto", "Where is it?"), config)).json()["model"] == "moondream-2"


def test_rules_are_read_from_yaml() -> None:
    config = RouterConfig.from_args({"auto": [{"when": {"tasks": ["ocr"]}, "models": ["florence-2-base"]}]})
    assert config.auto == (AutoRule(when=When(tasks=("ocr",)), models=("florence-2-base",)),)


@pytest.mark.parametrize(("text", "latin"), [("Où?", True), ("猫", False), ("12 !", True), ("кот", False)])
def test_latin(text: str, latin: bool) -> None:
    assert is_latin(text) == latin


# Dry runs


@pytest.mark.parametrize("model", ["auto", "compare", "florence-2-base"])
async def test_a_dry_run_asks_nobody_and_loads_nothing(model: str) -> None:
    models = Models()
    request = asking(model, task={"name": "caption"}, dry_run=True, models=[*NAMES])
    request["messages"] = [user({"type": "image_url", "image_url": {"url": "https://nowhere.invalid/a.png"}})]
    answer = await post(models, request, CONFIG)
    assert answer.status_code == 200, answer.text
    assert models.asked == []
    told = routing(answer)
    assert json.loads(said(answer)) == told
    assert told["dry_run"]
    assert {one["status"] for one in told["tried"]} == {"would_ask"}
    assert len(told["tried"]) == len(NAMES)
    assert answer.json()["usage"]["total_tokens"] == 0


async def test_a_dry_run_says_it_also_where_raw_output_is_wanted() -> None:
    answer = await post(Models(), asking("auto", task="raw", dry_run=True), CONFIG)
    assert json.loads(said(answer))["mode"] == "auto"


async def test_a_dry_run_tells_the_price_of_the_first() -> None:
    answer = await post(Models(), asking("florence-2-base", dry_run=True, models=["kosmos-2"]), CONFIG)
    assert (routing(answer)["chosen"], routing(answer)["cost_usd"]) == ("florence-2-base", 0.0001)


async def test_a_dry_run_of_compare_tells_the_price_of_all() -> None:
    request = asking("compare", task="caption", dry_run=True, models=["blip-large", "kosmos-2"])
    assert routing(await post(Models(), request, CONFIG))["cost_usd"] == pytest.approx(0.00065)


async def test_a_dry_run_streams_as_any_answer() -> None:
    answer = await post(Models(), asking("auto", dry_run=True, stream=True), CONFIG)
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_a_dry_run_of_a_region_in_pixels_needs_no_image() -> None:
    request = asking("auto", task={"name": "region_caption", "region": {"box_px": [1, 2, 3, 4]}}, dry_run=True)
    assert routing(await post(Models(), request, CONFIG))["chosen"] == "florence-2-base"


# What is refused


CAPTION = {"task": "caption"}
BAD = [
    Bad("an unknown model", asking("auto", models=["nobody"]), "model_not_found", "models[0]", 404),
    Bad("an unknown second model", asking("blip-large", models=["nobody"]), "model_not_found", "models[0]", 404),
    Bad("an unknown first model", asking("nobody", models=["blip-large"]), "model_not_found", "model", 404),
    Bad("a misspelt model", asking("auto", models=["blip-larg"]), "model_not_found", "models[0]", 404, "Did you mean"),
    Bad("auto among the models", asking("blip-large", models=["auto"]), "invalid_value", "models[0]"),
    Bad("compare among the models", asking("compare", models=["compare", "blip-large"]), "invalid_value", "models[0]"),
    Bad("auto within compare", asking("compare", models=["blip-large", "auto"]), "invalid_value", "models[1]"),
    Bad("no models", asking("auto", models=[]), "invalid_value", "models"),
    Bad("too many models", asking("auto", models=["blip-large"] * 9), "invalid_value", "models"),
    Bad("models is a string", asking("auto", models="blip-large"), "invalid_type", "models"),
    Bad("a model is a number", asking("auto", models=[1]), "invalid_type", "models[0]"),
    Bad("an empty name", asking("auto", models=[""]), "invalid_value", "models[0]"),
    Bad("a task behind a name", asking("auto", models=["blip-large:caption"]), "invalid_value", "models[0]"),
    Bad("an unknown task", asking("auto", task="dance"), "unsupported_task", "task", words="None of the models"),
    Bad("a task that none has", asking("blip-large", task="query", models=["florence-2-base"]), "unsupported_task",
        "model", words="These do: kosmos-2, moondream-2"),
    Bad("a task behind auto that none has", asking("auto:ocr", models=["blip-large"]), "unsupported_task", "models[0]"),
    Bad("nothing so cheap", asking("auto", max_price={"image": 0.00001}), "invalid_value", "max_price.image"),
    Bad("the model is dearer", asking("kosmos-2", max_price={"image": 0.0005}), "invalid_value", "max_price.image"),
    Bad("its price is not known", asking("moondream-2", max_price={"image": 1}), "invalid_value", "max_price.image",
        words="has no known price"),
    Bad("a price below 0", asking("auto", max_price={"image": -1}), "invalid_value", "max_price.image"),
    Bad("a price is a string", asking("auto", max_price={"image": "1"}), "invalid_type", "max_price.image"),
    Bad("a price of something else", asking("auto", max_price={"token": 1}), "missing_required_parameter",
        "max_price.image"),
    Bad("a price without its kind", asking("auto", max_price={}), "missing_required_parameter", "max_price.image"),
    Bad("a price alone", asking("auto", max_price=1), "invalid_type", "max_price"),
    Bad("another preference", asking("auto", prefer="pretty"), "invalid_value", "prefer"),
    Bad("a preference without a choice", asking("blip-large", prefer="cheap"), "invalid_value", "prefer"),
    Bad("a preference with compare", asking("compare", prefer="fast", **CAPTION), "invalid_value", "prefer"),
    Bad("dry_run is a string", asking("auto", dry_run="yes"), "invalid_type", "dry_run"),
    Bad("several answers of each", asking("compare", n=2, **CAPTION), "invalid_value", "n"),
    Bad("several tasks of each", asking("compare", tasks=["caption", "ocr"]), "invalid_value", "tasks"),
    Bad("one model to compare", asking("compare", models=["blip-large"], **CAPTION), "invalid_value", "models"),
    Bad("one with the task", asking("compare", task="region_caption", max_price={"image": 0.0002}), "invalid_value",
        "models"),
    Bad("the same twice", asking("compare", models=["blip-large", "blip-large"]), "invalid_value", "models[1]"),
    Bad("the same by another name", asking("compare", models=["blip-large", "Salesforce/blip-image-captioning-large"]),
        "invalid_value", "models[1]"),
    Bad("one lacks the task", asking("compare", models=["florence-2-base", "blip-large"], task="ocr"),
        "unsupported_task", "models[1]"),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
async def test_the_impossible_is_refused_at_the_door(bad: Bad) -> None:
    models = Models()
    answer = await post(models, bad.request, RouterConfig(prices=PRICES))
    error = check_error(answer, bad.status, bad.code, bad.param)
    assert bad.words in error["message"]
    assert models.asked == []


async def test_nothing_is_served() -> None:
    answer = await post(Models(names=["blip-large"]), asking("auto", models=["kosmos-2"]), CONFIG)
    check_error(answer, 404, "model_not_found", "models[0]")


async def test_text_without_an_image_is_read_too() -> None:
    request = {**asking("auto"), "messages": [user(text_part("How many?"))]}
    assert (await post(Models(), request, CONFIG)).json()["model"] == "moondream-2"
