"""``service_tier``: who lets others go first, and what the answer says of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.router.responses.clients import asked
from tests.router.world import FakeBackend, body, check_error, client, events, post

pytestmark = pytest.mark.anyio

TIERS = [("auto", "default"), ("default", "default"), ("priority", "default"), ("scale", "default"), ("flex", "flex")]


@pytest.mark.parametrize(("tier", "served"), TIERS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_answer_says_how_it_was_served(tier: str, served: str, stream: bool) -> None:
    backend = FakeBackend()
    answer = await post(backend, body(service_tier=tier, stream=stream))
    told = events(answer.text) if stream else [answer.json()]
    assert {one["service_tier"] for one in told} == {served}
    [(_, request)] = backend.asked
    assert request.priority == ("batch" if tier == "flex" else "interactive")
    assert "service_tier" not in told[-1]["x_gigarouter"]["ignored"]


@pytest.mark.parametrize("fields", [{}, {"service_tier": None}])
async def test_an_answer_says_nothing_that_was_not_asked(fields: dict[str, Any]) -> None:
    backend = FakeBackend()
    assert "service_tier" not in (await post(backend, body(**fields))).json()
    assert backend.asked[0][1].priority == "interactive"


@pytest.mark.parametrize(("tier", "served"), [*TIERS, (None, None)])
async def test_a_response_says_how_it_was_served(tier: str | None, served: str | None) -> None:
    backend = FakeBackend()
    async with client(backend) as http:
        answer = await http.post("/v1/responses", json=asked(service_tier=tier))
    assert answer.json()["service_tier"] == served
    assert (backend.asked[0][1].priority == "batch") == (tier == "flex")


async def test_a_tier_that_there_is_not_is_refused() -> None:
    check_error(await post(FakeBackend(), body(service_tier="gold")), 400, "invalid_value", "service_tier")
