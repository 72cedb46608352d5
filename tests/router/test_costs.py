"""What answers say that they cost: the price list's amount, in every format, whole and streamed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from router.config import RouterConfig
from tests.router.composition.world import Models, asking
from tests.router.world import events, post, script, words
from vlm.types import Usage

PRICES: dict[str, Any] = {
    "blip-large": {
        "image": "0.6",
        "cached_image": "0.2",
        "tasks": {"caption": {"each": "0.1", "output": "0.01"}},
    },
    "florence-2-base": "0.094",
}
CONFIG = RouterConfig(prices=PRICES)
NEW = replace(words("a square"), usage=Usage(image_tokens=577, text_tokens=3, completion_tokens=4))
SEEN = replace(NEW, usage=replace(NEW.usage, cached_tokens=577))
TASK = NEW.grounding.task
COST_OF_NEW = (600_000 + 100_000 + 4 * 10_000) / 1e9
COST_OF_SEEN = (200_000 + 100_000 + 4 * 10_000) / 1e9


@pytest.mark.anyio
async def test_an_image_that_was_seen_before_is_cheaper() -> None:
    assert TASK == "caption"
    for completion, cost in ((NEW, COST_OF_NEW), (SEEN, COST_OF_SEEN)):
        models = Models({"blip-large": script(completion)})
        answer = (await post(models, asking("blip-large"), CONFIG)).json()
        assert answer["usage"]["cost"] == pytest.approx(cost)


@pytest.mark.anyio
async def test_a_batch_pays_half() -> None:
    models = Models({"blip-large": script(NEW)})
    answer = (await post(models, asking("blip-large", service_tier="flex"), CONFIG)).json()
    assert answer["usage"]["cost"] == pytest.approx(COST_OF_NEW / 2)


@pytest.mark.anyio
async def test_a_stream_says_it_in_its_last_chunk() -> None:
    models = Models({"blip-large": script(NEW)})
    request = asking("blip-large", stream=True, stream_options={"include_usage": True})
    told = events((await post(models, request, CONFIG)).text)
    assert told[-1]["usage"]["cost"] == pytest.approx(COST_OF_NEW)


@pytest.mark.anyio
async def test_a_model_without_a_price_says_nothing() -> None:
    answer = (await post(Models(), asking("kosmos-2"), CONFIG)).json()
    assert "cost" not in answer["usage"]


@pytest.mark.anyio
async def test_several_models_cost_the_sum() -> None:
    models = Models({"blip-large": script(NEW), "florence-2-base": script(NEW)})
    request = asking("compare", task="caption", models=["blip-large", "florence-2-base"])
    answer = (await post(models, request, CONFIG)).json()
    results = [one["cost_usd"] for one in answer["x_gigarouter"]["results"]]
    assert results == pytest.approx([COST_OF_NEW, 0.000094])
    assert answer["usage"]["cost"] == pytest.approx(sum(results))
    assert answer["x_gigarouter"]["routing"]["cost_usd"] == pytest.approx(sum(results))
