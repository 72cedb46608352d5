"""What the meter learns of requests that several models have to do with."""

from __future__ import annotations

import json

import httpx
import pytest

from router.app import create_app
from router.asgi.metering import RequestRecord
from tests.router.composition.test_cascade import CHEAP, DEAR, Calibrated, found
from tests.router.composition.test_cascade import REQUEST as CASCADE
from tests.router.composition.world import CONFIG, Models, asking
from tests.router.world import CHAT, Json, script
from vlm.errors import EngineFailure, Overloaded

pytestmark = pytest.mark.anyio


async def recorded(models: Models, request: Json) -> RequestRecord:
    """What becomes of one request."""
    records: list[RequestRecord] = []
    app = create_app(models, CONFIG, meter=lambda _, record: records.append(record))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router") as http:
        await http.post(CHAT, content=json.dumps(request).encode(), headers={"content-type": "application/json"})
    (record,) = records
    return record


async def test_the_record_is_of_the_model_whose_answer_was_taken() -> None:
    models = Calibrated({CHEAP: script(found(0.3)), DEAR: [EngineFailure("broke")]})
    record = await recorded(models, CASCADE)
    assert (record.outcome, record.model) == ("completed", CHEAP)


async def test_the_stages_are_those_of_the_first_model() -> None:
    models = Models({"blip-large": [Overloaded("full")]}, pauses_s={"blip-large": 0.05})
    record = await recorded(models, asking("blip-large", models=["kosmos-2"], task="caption"))
    assert record.model == "kosmos-2"
    assert record.asked_s is not None
    assert record.admitted_s is not None
    assert record.read_s is not None
    assert record.asked_s <= record.admitted_s <= record.read_s < record.total_s - 0.05


async def test_a_joint_answer_is_counted_under_its_mode_however_its_name_is_spelt() -> None:
    assert (await recorded(Models(), asking("compare:caption"))).model == "compare"


async def test_a_dry_run_tells_nothing_of_a_models_speed() -> None:
    record = await recorded(Models(), asking("auto", dry_run=True))
    assert record.outcome == "completed"
    assert (record.usage, record.timings) == (None, None)
