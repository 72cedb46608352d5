"""Requests with an idempotency key through the whole router: answered once, and paid once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from accounts import schema
from accounts.environment import DATABASE_URL
from accounts.types import KeySpec
from router.accounts.access import KeyBill
from router.accounts.service import AccountsService
from router.app import create_app
from router.config import RouterConfig
from tests.listening import listening
from tests.router.accounts.bank import ACTOR, CAPTION, PRICES, Bank
from tests.router.accounts.world import bearer
from tests.router.composition.world import Models, asking
from tests.router.world import CHAT, script, words
from vlm.errors import EngineFailure

pytestmark = pytest.mark.anyio
Json = dict[str, Any]

REQUEST = asking("blip-large", task="caption")
STREAM = {**REQUEST, "stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def ask(shop: Bank, secret: str, request: Json = REQUEST, key: str = "order 66") -> httpx.Response:
    return await shop.http.post(CHAT, json=request, headers={**bearer(secret), "idempotency-key": key})


@pytest.mark.parametrize("request_", [REQUEST, STREAM])
async def test_the_same_again_is_answered_alike_and_paid_once(shop: Bank, models: Models, request_: Json) -> None:
    secret = shop.key()
    first = await ask(shop, secret, request_)
    assert first.status_code == 200
    for _ in range(3):
        again = await ask(shop, secret, request_)
        assert again.content == first.content
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers["x-gigarouter-model"] == "blip-large"
    assert [charge["amount"] for charge in await shop.charges()] == [-CAPTION]
    assert models.names_asked == ["blip-large"]


@pytest.mark.parametrize("request_", [REQUEST, STREAM])
async def test_many_at_once_are_answered_alike_and_paid_once(shop: Bank, models: Models, request_: Json) -> None:
    models.pauses_s = {"blip-large": 0.05}
    secret = shop.key()
    answers = await asyncio.gather(*(ask(shop, secret, request_) for _ in range(20)))
    assert len({answer.content for answer in answers}) == 1
    assert len(await shop.charges()) == 1
    assert models.names_asked == ["blip-large"]


@pytest.mark.parametrize("stream", [False, True])
async def test_after_an_error_it_is_done_anew(shop: Bank, models: Models, *, stream: bool) -> None:
    secret, request = shop.key(), STREAM if stream else REQUEST
    models.plays = {"blip-large": [*script(words())[:1], EngineFailure("It broke.")]}
    first = await ask(shop, secret, request)
    assert "It broke." in first.text
    models.plays = {}
    again = await ask(shop, secret, request)
    assert "idempotent-replayed" not in again.headers
    assert "It broke." not in again.text
    assert [charge["amount"] for charge in await shop.charges()] == [-CAPTION]


async def test_a_dry_run_is_not_kept(shop: Bank) -> None:
    """It costs nothing and counts for no limit, so that anybody could fill the database with its answers."""
    secret = shop.key()
    for number in range(3):
        answer = await ask(shop, secret, asking("auto", task="caption", dry_run=True), f"dry {number}")
        assert answer.status_code == 200
    with shop.service.database.read() as connection:
        assert not connection.execute(select(schema.answers)).all()
    assert (await ask(shop, secret, REQUEST, "dry 0")).status_code == 200, "its key is free again"


@pytest.mark.parametrize("request_", [REQUEST, STREAM])
async def test_who_leaves_and_asks_again_pays_once(shop: Bank, models: Models, request_: Json) -> None:
    models.pauses_s = {"blip-large": 0.1}
    secret = shop.key()
    leaving = asyncio.create_task(ask(shop, secret, request_))
    await asyncio.sleep(0.15)
    leaving.cancel()
    with suppress(asyncio.CancelledError):
        await leaving
    assert (await ask(shop, secret, request_)).status_code == 200
    charges = await shop.charges()
    assert sum(charge["outcome"] == "completed" for charge in charges) == 1


async def test_what_was_stored_and_not_billed_is_billed_with_the_replay(
    shop: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the router is killed between the two."""
    secret = shop.key()
    with monkeypatch.context() as patched:
        patched.setattr(KeyBill, "sent", lambda _bill: None)
        patched.setattr(KeyBill, "_bill", lambda _bill, _settlements: None)
        first = await ask(shop, secret)
    again = await ask(shop, secret)
    assert again.content == first.content
    assert [charge["amount"] for charge in await shop.charges()] == [-CAPTION]


async def test_a_real_client_that_closes_its_connection_finds_its_answer(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path, models: Models
) -> None:
    models.pauses_s = {"blip-large": 0.1}
    monkeypatch.setenv(DATABASE_URL, database_url)
    config = RouterConfig(database_url="environment", outbox_folder=str(tmp_path / "outbox"), prices=PRICES)
    service = AccountsService(config)
    directory = service.accounts.directory
    account = directory.create_account(directory.create_organisation("shop", ACTOR).id, "cameras", ACTOR, prepaid=False)
    headers = {**bearer(directory.create_key(account.id, KeySpec("test"), ACTOR).secret), "idempotency-key": "order 66"}
    with listening(create_app(models, config, accounts=service)) as url:
        async with httpx.AsyncClient(base_url=url) as http:
            async with http.stream("POST", CHAT, json=STREAM, headers=headers) as answer:
                begun = await anext(answer.aiter_bytes())
            again = await http.post(CHAT, json=STREAM, headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.content.startswith(begun)
    assert len(again.content) > len(begun)
    assert models.names_asked == ["blip-large"]
