"""What requests cost their keys: over HTTP, with the accounts of a router in a database."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from starlette.types import Message

from accounts.errors import AccountsUnavailable
from accounts.outbox import Outbox, Slot
from accounts.types import Limits, Period
from router.admission.capacity import Capacity
from router.asgi.billing import MOST_TOKENS
from tests.router.accounts.bank import CAPTION, Bank, bank
from tests.router.accounts.world import bearer, eventually
from tests.router.composition.world import Models, asking
from tests.router.world import CHAT, FakeBackend, events, script, words
from vlm.errors import EngineFailure, Overloaded

pytestmark = pytest.mark.anyio

NANO = 1e9
REQUEST = asking("blip-large", task="caption")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Roomy(Models):
    """Models with room for everybody."""

    def capacity(self, model: str) -> Capacity:
        return Capacity(1, 1, 400, 400)


@pytest.fixture
def models() -> Models:
    return Roomy()


async def test_an_answer_is_charged_once_as_it_says(shop: Bank) -> None:
    answer = await shop.ask(shop.key(), REQUEST)
    assert answer.status_code == 200
    assert answer.json()["usage"]["cost"] == pytest.approx(CAPTION / NANO)
    [charge] = await shop.charges()
    assert charge["amount"] == -CAPTION
    told = (charge["request_id"], charge["model"], charge["tasks"], charge["images"], charge["outcome"])
    assert told == (answer.headers["x-request-id"], "blip-large", "caption", 1, "completed")
    assert shop.sums() == (-CAPTION, 0)


async def test_so_is_a_stream(shop: Bank) -> None:
    request = {**REQUEST, "stream": True, "stream_options": {"include_usage": True}}
    answer = await shop.ask(shop.key(), request)
    assert events(answer.text)[-1]["usage"]["cost"] == pytest.approx(CAPTION / NANO)
    [charge] = await shop.charges()
    assert charge["amount"] == -CAPTION


async def test_so_is_a_stream_of_one_part(shop: Bank, models: Models) -> None:
    """The model answered before anything could be sent."""
    models.plays = {"blip-large": script(words())[-1:]}
    answer = await shop.ask(shop.key(), {**REQUEST, "stream": True})
    assert answer.status_code == 200
    [charge] = await shop.charges()
    assert charge["amount"] == -CAPTION


async def test_so_are_the_other_formats(shop: Bank) -> None:
    url = REQUEST["messages"][0]["content"][0]["image_url"]["url"]
    secret = shop.key()
    content = [{"type": "input_image", "image_url": url}]
    asked = {"model": "blip-large", "task": "caption", "input": [{"role": "user", "content": content}]}
    response = await shop.ask(secret, asked, "/v1/responses")
    moondream = await shop.ask(secret, {"model": "blip-large", "image_url": url}, "/v1/caption")
    costs = (response.json()["usage"]["cost"], moondream.json()["x_gigarouter"]["cost"])
    assert costs == pytest.approx((CAPTION / NANO,) * 2)
    assert [charge["amount"] for charge in await shop.charges()] == [-CAPTION] * 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("error", [EngineFailure("It broke."), Overloaded("It is full.")])
async def test_our_own_errors_cost_nothing(shop: Bank, models: Models, error: Exception, *, stream: bool) -> None:
    models.plays = {"blip-large": [*script(words())[:1], error]}
    await shop.ask(shop.key(), {**REQUEST, "stream": stream})
    assert await shop.charges() == []
    assert shop.sums() == (0, 0)

    async def is_counted() -> bool:
        return bool(shop.usage())

    await eventually(is_counted)
    [usage] = shop.usage()
    assert (usage["requests"], usage["failed"], usage["amount"]) == (0, 1, 0)


async def test_a_bad_request_costs_nothing(shop: Bank) -> None:
    answer = await shop.ask(shop.key(), {**REQUEST, "max_tokens": -1})
    assert answer.status_code == 400
    assert (await shop.charges(), shop.usage()) == ([], [])


async def test_who_leaves_pays_for_what_was_done(shop: Bank, models: Models) -> None:
    models.pauses_s = {"blip-large": 0.2}
    secret, request = shop.key(), {**REQUEST, "stream": True}

    async def leave() -> None:
        async with shop.http.stream("POST", CHAT, json=request, headers=bearer(secret)) as answer:
            await anext(answer.aiter_bytes())

    asked = asyncio.create_task(leave())
    await asyncio.sleep(0.5)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    [charge] = await shop.charges()
    assert charge["outcome"] == "abandoned"
    assert -CAPTION < charge["amount"] < -600_000


async def test_who_does_not_read_in_time_pays_for_what_was_done(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    """Else a client could read nearly all of a stream, wait for the deadline, and take the rest for nothing."""
    slow = Roomy(pauses_s={"blip-large": 0.05})
    async with bank(monkeypatch, database_url, tmp_path / "slow", slow, request_timeout_s=2.0) as shop:
        content = json.dumps({**REQUEST, "stream": True}).encode()
        headers = [(b"host", b"router"), (b"authorization", f"Bearer {shop.key()}".encode())]
        arriving = iter([{"type": "http.request", "body": content, "more_body": False}])
        sent: list[bytes] = []

        async def receive() -> Message:
            for message in arriving:
                return message
            await asyncio.sleep(60)
            raise AssertionError("nobody waits that long")

        async def send(message: Message) -> None:
            sent.append(message.get("body", b""))
            if b"square" in sent[-1]:
                await asyncio.sleep(2.5)  # the connection takes no more until the client reads

        scope = {"type": "http", "method": "POST", "path": CHAT, "raw_path": CHAT.encode(), "query_string": b"",
                 "root_path": "", "headers": headers, "http_version": "1.1", "scheme": "http"}  # fmt: skip
        await shop.app(scope, receive, send)
        assert b'"code":"timeout"' in b"".join(sent)
        [charge] = await shop.charges()
        assert charge["outcome"] == "abandoned"
        assert -CAPTION <= charge["amount"] < -600_000


class Serving(FakeBackend):
    """Two models, and no other."""

    def capacity(self, model: str) -> Capacity:
        return Capacity(1, 1, 400, 400)

    def serves(self, model: str) -> bool:
        return model in self.names()


async def test_names_that_clients_make_up_are_not_in_the_books(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    async with bank(monkeypatch, database_url, tmp_path / "serving", Serving()) as shop:
        secret = shop.key()
        for name in ("nothing", "nothing\0", "kosmos-2"):
            assert (await shop.ask(secret, {**REQUEST, "model": name})).status_code == 404
        assert (await shop.ask(secret, REQUEST)).status_code == 200
        assert len(await shop.charges()) == 1
        assert {row["model"]: row["failed"] for row in shop.usage()} == {"blip-large": 0, "kosmos-2": 1}


async def test_several_models_are_one_bill(shop: Bank) -> None:
    answer = await shop.ask(shop.key(), asking("compare", task="caption", models=["blip-large", "florence-2-base"]))
    charges = await shop.charges()
    assert {charge["model"]: charge["amount"] for charge in charges} == {
        "blip-large": -CAPTION, "florence-2-base": -100_000,
    }  # fmt: skip
    assert {charge["request_id"] for charge in charges} == {answer.headers["x-request-id"]}
    assert answer.json()["usage"]["cost"] == pytest.approx((CAPTION + 100_000) / NANO)


async def test_a_fallback_pays_for_the_model_that_answers(shop: Bank, models: Models) -> None:
    models.plays = {"florence-2-base": [Overloaded("It is full.")]}
    answer = await shop.ask(shop.key(), asking("florence-2-base", task="caption", models=["blip-large"]))
    assert answer.json()["model"] == "blip-large"
    [charge] = await shop.charges()
    assert (charge["model"], charge["amount"]) == ("blip-large", -CAPTION)


async def test_a_dry_run_costs_nothing(shop: Bank) -> None:
    answer = await shop.ask(shop.key(), asking("auto", task="caption", dry_run=True))
    assert answer.status_code == 200
    assert await shop.charges() == []


@pytest.mark.parametrize(("budgets", "held"), [({}, 0), ({"day": 10 * CAPTION}, CAPTION)])
async def test_money_is_held_where_something_could_be_overspent(
    shop: Bank, models: Models, budgets: dict[Period, int], held: int
) -> None:
    models.pauses_s = {"blip-large": 0.2}
    secret = shop.key(budgets=budgets)
    asked = asyncio.create_task(shop.ask(secret, {**REQUEST, "max_tokens": 3}))
    await asyncio.sleep(0.3)
    assert shop.sums() == (0, held)
    await asked
    assert [charge["amount"] for charge in await shop.charges()] == [-CAPTION]
    assert shop.sums() == (-CAPTION, 0)


# What a key allows


async def test_a_model_that_the_key_does_not_allow(shop: Bank, models: Models) -> None:
    secret = shop.key(models=frozenset({"florence-2-base"}))
    refused = await shop.ask(secret, REQUEST)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (403, "model_not_allowed", "model")
    named = await shop.ask(secret, asking("florence-2-base", task="caption", models=["blip-large"]))
    assert (named.status_code, named.json()["error"]["param"]) == (403, "models[0]")
    assert not models.asked
    listed = (await shop.http.get("/v1/models", headers=bearer(secret))).json()["data"]
    assert [one["id"] for one in listed] == ["florence-2-base"]
    one = await shop.http.get("/v1/models/blip-large", headers=bearer(secret))
    assert one.status_code == 404
    chosen = await shop.ask(secret, asking("auto", task="caption"))
    assert chosen.json()["model"] == "florence-2-base"


async def test_a_task_that_the_key_does_not_allow(shop: Bank) -> None:
    secret = shop.key(tasks=frozenset({"caption"}))
    assert (await shop.ask(secret, REQUEST)).status_code == 200
    for request in (asking("florence-2-base", task="detect"), asking("florence-2-base", "<OD>")):
        refused = await shop.ask(secret, request)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")


class Asleep(Roomy):
    """Models without a replica, and those for which one was waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[str] = []

    async def asleep(self, model: str) -> bool:
        self.waited.append(model)
        return True


async def test_what_a_key_does_not_allow_starts_no_model(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    models = Asleep()
    async with bank(monkeypatch, database_url, tmp_path / "asleep", models) as shop:
        for spec in ({"models": frozenset({"florence-2-base"})}, {"tasks": frozenset({"detect"})}):
            assert (await shop.ask(shop.key(**spec), REQUEST)).status_code == 403
        assert models.waited == []
        assert (await shop.ask(shop.key(), REQUEST)).status_code == 200
        assert models.waited


# What it may spend


async def test_no_more_is_held_than_a_model_can_write(shop: Bank, models: Models) -> None:
    """Many a client sends a limit far above any model's context."""
    models.pauses_s = {"blip-large": 0.1}
    asked = asyncio.create_task(shop.ask(shop.key(budgets={"day": 10**12}), {**REQUEST, "max_tokens": 2**31 - 1}))
    while not models.asked:
        await asyncio.sleep(0.01)
    assert shop.sums() == (0, 600_000 + 100_000 + MOST_TOKENS * 10_000)
    assert (await asked).status_code == 200


async def test_who_is_refused_has_taken_no_tokens(shop: Bank) -> None:
    secret = shop.key(budgets={"day": 1}, limits={"*": Limits(tokens=4_000)})
    answers = [await shop.ask(secret, REQUEST) for _ in range(3)]
    assert [answer.json()["error"]["code"] for answer in answers] == ["insufficient_quota"] * 3


async def test_what_failed_holds_no_money_while_the_next_one_answers(shop: Bank, models: Models) -> None:
    models.plays = {"blip-large": [Overloaded("It is full.")]}
    secret = shop.key(budgets={"day": 700_000 + 3 * 10_000})  # covers one of the two
    request = asking("blip-large", task="caption", max_tokens=3, models=["kosmos-2"])
    answer = await shop.ask(secret, request)
    assert answer.json()["model"] == "kosmos-2", answer.text
    [charge] = await shop.charges()
    assert (charge["model"], charge["amount"]) == ("kosmos-2", -600_000)
    assert [(row["model"], row["requests"], row["failed"]) for row in shop.usage()] == [
        ("blip-large", 0, 1), ("kosmos-2", 1, 0),
    ]  # fmt: skip


async def test_a_model_that_is_given_up_leaves_its_place_to_the_next(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    slow = Roomy(pauses_s={"blip-large": 60.0})
    async with bank(monkeypatch, database_url, tmp_path / "slow", slow, request_timeout_s=2.0) as shop:
        secret = shop.key(limits={"*": Limits(concurrent=1)})
        answer = await shop.ask(secret, asking("blip-large", task="caption", models=["kosmos-2"]))
        assert answer.json()["model"] == "kosmos-2", answer.text
        assert [charge["model"] for charge in await shop.charges()] == ["kosmos-2"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_cannot_be_written_down_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, shop: Bank, *, stream: bool
) -> None:
    """As where the disk is full: the client gets an error in place of the end of its answer."""

    def full(_outbox: Outbox, _settlements: object) -> Slot:
        raise AccountsUnavailable("What the request costs cannot be written down now; try again.")

    monkeypatch.setattr(Outbox, "write", full)
    answer = await shop.ask(shop.key(), {**REQUEST, "stream": stream})
    assert "accounts_unavailable" in answer.text
    assert (await shop.charges(), shop.sums()) == ([], (0, 0))


async def test_a_budget_that_is_spent(shop: Bank) -> None:
    secret = shop.key(budgets={"day": 2 * CAPTION})
    request = {**REQUEST, "max_tokens": 3}
    for _ in range(2):
        assert (await shop.ask(secret, request)).status_code == 200
    refused = await shop.ask(secret, request)
    assert refused.status_code == 429
    assert (refused.json()["error"]["type"], refused.json()["error"]["code"]) == ("insufficient_quota",) * 2
    assert refused.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("period", ["day", "month", "total"])
async def test_many_requests_at_once_stay_within_a_budget(shop: Bank, models: Models, period: str) -> None:
    models.pauses_s = {"blip-large": 0.05}
    secret = shop.key(budgets={period: 100 * CAPTION})
    request = {**REQUEST, "max_tokens": 3}
    answers = await asyncio.gather(*(shop.ask(secret, request) for _ in range(300)))
    served = sum(answer.status_code == 200 for answer in answers)
    charges = await shop.charges()
    assert 99 <= served <= 100
    assert len(charges) == served
    assert sum(charge["amount"] for charge in charges) >= -100 * CAPTION


async def test_two_routers_share_a_budget(
    monkeypatch: pytest.MonkeyPatch, shop: Bank, database_url: str, tmp_path: Path, models: Models
) -> None:
    models.pauses_s = {"blip-large": 0.05}
    secret = shop.key(budgets={"total": 100 * CAPTION})
    request = {**REQUEST, "max_tokens": 3}
    async with bank(monkeypatch, database_url, tmp_path / "another", Roomy()) as other:
        routers = (shop, other)
        answers = await asyncio.gather(*(routers[number % 2].ask(secret, request) for number in range(300)))
        await other.charges()
    served = sum(answer.status_code == 200 for answer in answers)
    charges = await shop.charges()
    assert 99 <= served <= 100
    assert sum(charge["amount"] for charge in charges) == -served * CAPTION


async def test_limits(shop: Bank) -> None:
    secret = shop.key(limits={"*": Limits(requests=2)})
    answers = [await shop.ask(secret, REQUEST) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[1].headers["x-ratelimit-remaining-requests"] == "0"
    assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"
    assert int(answers[2].headers["retry-after"]) <= 61  # a moment more, by the clock of what counts
