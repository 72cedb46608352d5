"""Credits, the ledger and usage as keys see them, over real databases."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from accounts.database import Database
from accounts.ledger import keep_price_list, post
from accounts.types import Account, Charge, HoldAsk, Settlement
from router.accounts import money_routes
from router.accounts.money_views import resets_at
from tests.router.accounts.books import ON_SQLITE, World
from tests.router.accounts.books import world as a_world
from tests.router.accounts.test_admin import said
from tests.router.world import check_error

Json = dict[str, Any]

pytestmark = pytest.mark.anyio

NOW = int(datetime.now(UTC).timestamp() * 1000)
DAY = 86_400_000


def today(days_ago: int = 0) -> str:
    return (datetime.fromtimestamp(NOW / 1000, UTC) - timedelta(days=days_ago)).date().isoformat()


def charged(world: World, secret: str, amount: int, *, model: str = "blip-large", days_ago: int = 0) -> None:
    """An answer was given for this amount."""
    at = NOW - days_ago * DAY
    key = world.directory.find(world.directory.digest(secret))
    assert key is not None
    with world.database.begin() as connection:
        keep_price_list(connection, "d" * 32, {"version": "1"}, at)
        hold = f"hold_{world.holds}"
        world.holds += 1
        ask = HoldAsk(hold, key.account, key.id, amount, at + DAY)
        assert post(connection, asks=[ask], now=at) == [None]
        charge = Charge(model, ("caption",), images=1, completion_tokens=7)
        done = Settlement(hold, key.account, key.id, amount, charge, "completed", "req_1", at, "d" * 32)
        post(connection, settlements=[done], now=at)


def held(world: World, account: Account, key: str, amount: int) -> None:
    """A request is under way."""
    with world.database.begin() as connection:
        post(connection, asks=[HoldAsk("hold_open", account.id, key, amount, NOW + DAY)], now=NOW)


async def test_credits_and_budgets(database: Database) -> None:
    world = a_world(database)
    secret = world.key(budgets={"day": 1_000_000_000, "total": 2_000_000_000})
    charged(world, secret, 250_000_000)
    charged(world, secret, 50_000_000, days_ago=40)
    async with world.serving(secret, world.admin) as [http, admin]:
        mine = await said(http.get("/v1/key"))
        held(world, world.account, mine["id"], 100_000_000)
        found = await said(http.get("/v1/credits"))
        assert found.pop("budgets") == {
            "day": {"limit": "1", "spent": "0.25", "held": "0.1", "available": "0.65",
                    "resets_at": resets_at("day", datetime.now(UTC))},
            "total": {"limit": "2", "spent": "0.3", "held": "0.1", "available": "1.6", "resets_at": None},
        }  # fmt: skip
        assert found == {
            "object": "credits", "account": world.account.id, "currency": "usd", "prepaid": True, "balance": "4.7",
            "held": "0.1", "available": "4.6",
        }  # fmt: skip
        assert await said(admin.get(f"/v1/admin/credits/{world.account.id}")) == found


async def test_grants_and_refunds_are_entries_and_are_in_the_audit_log(database: Database) -> None:
    world = a_world(database)
    secret = world.key()
    charged(world, secret, 1)
    async with world.serving(secret, world.admin) as [http, admin]:
        for kind, amount, balance in (("grant", "10", "14.999999999"), ("refund", "0.000000001", "15"),
                                      ("grant", "-1.5", "13.5")):  # fmt: skip
            body = {"account": world.account.id, "kind": kind, "amount": amount, "note": "thanks"}
            assert (await said(admin.post("/v1/admin/credits", json=body)))["balance"] == balance
        page = await said(http.get("/v1/credits/entries"))
        assert [(one["kind"], one["amount"], one["note"]) for one in page["data"]] == [
            ("grant", "-1.5", "thanks"), ("refund", "0.000000001", "thanks"), ("grant", "10", "thanks"),
            ("charge", "-0.000000001", None), ("sign_up", "5", None),
        ]  # fmt: skip
        charge = page["data"][3]
        assert (charge["model"], charge["tasks"], charge["request_id"]) == ("blip-large", ["caption"], "req_1")
        assert page == await said(admin.get(f"/v1/admin/credits/{world.account.id}/entries"))
        log = await said(admin.get("/v1/admin/audit", params={"subject": world.account.id}))
        assert [one["action"] for one in log["data"]][:3] == ["credits.grant", "credits.refund", "credits.grant"]
        assert {one["actor"] for one in log["data"][:3]} == {(await said(admin.get("/v1/key")))["id"]}


async def test_pages_of_the_ledger(database: Database) -> None:
    world = a_world(database)
    secret = world.key()
    for amount in range(1, 6):
        charged(world, secret, amount)
    async with world.serving(secret) as [http]:
        amounts: list[str] = []
        after: Json = {}
        for _ in range(3):
            page = await said(http.get("/v1/credits/entries", params={"limit": 2, **after}))
            amounts += [one["amount"] for one in page["data"]]
            after = {"after": page["last_id"]}
        assert amounts == [*(f"-0.00000000{amount}" for amount in (5, 4, 3, 2, 1)), "5"]
        assert not page["has_more"]


@ON_SQLITE
@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"amount": "1"}, 400, "account"),
        ({"account": "nobody", "amount": "1"}, 404, "account"),
        ({"account": "A", "amount": "0"}, 400, "amount"),
        ({"account": "A", "amount": 1}, 400, "amount"),
        ({"account": "A", "amount": "-1", "kind": "refund"}, 400, "amount"),
        ({"account": "A", "amount": "1", "kind": "charge"}, 400, "kind"),
        ({"account": "A", "amount": "1", "note": "\0"}, 400, "note"),
        ({"account": "A", "amount": "1", "currency": "eur"}, 400, "currency"),
    ],
)
async def test_credits_that_are_refused(database: Database, body: Json, status: int, param: str) -> None:
    world = a_world(database)
    async with world.serving(world.admin) as [http]:
        body = {**body, "account": world.account.id} if body.get("account") == "A" else body
        answer = await http.post("/v1/admin/credits", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text
        assert (await said(http.get(f"/v1/admin/credits/{world.account.id}")))["balance"] == "5"


async def test_usage_by_day_model_and_key(database: Database) -> None:
    world = a_world(database)
    first, second = world.key(), world.key()
    charged(world, first, 10)
    charged(world, first, 20, model="kosmos-2")
    charged(world, second, 30, days_ago=1)
    charged(world, second, 40, days_ago=400)
    async with world.serving(first, world.admin) as [http, admin]:
        page = await said(http.get("/v1/usage"))
        assert (page["start"], page["end"], page["group_by"]) == (today(29), today(), ["day"])
        assert [(one["day"], one["requests"], one["cost"]) for one in page["data"]] == [
            (today(1), 1, "0.00000003"), (today(), 2, "0.00000003")
        ]  # fmt: skip
        assert {one["model"] for one in page["data"]} == {None}
        by_model = await said(http.get("/v1/usage", params={"group_by": "model", "start": "2020-01-01"}))
        assert [(one["model"], one["completion_tokens"], one["cost"]) for one in by_model["data"]] == [
            ("blip-large", 21, "0.00000008"), ("kosmos-2", 7, "0.00000002")
        ]  # fmt: skip
        by_all = await said(http.get("/v1/usage", params={"group_by": "key,day,model"}))
        assert by_all["group_by"] == ["day", "model", "key"]
        assert len(by_all["data"]) == 3
        found: list[Json] = []
        page_of: Json = {}
        while True:
            page = await said(http.get("/v1/usage", params={"group_by": "day,model,key", "limit": 1, **page_of}))
            found += page["data"]
            if not page["has_more"]:
                break
            page_of = {"page": page["next_page"]}
        assert found == by_all["data"]
        all_accounts = await said(admin.get("/v1/admin/usage", params={"group_by": "account"}))
        assert [one["account"] for one in all_accounts["data"]] == [world.account.id]
        of_one = await said(admin.get("/v1/admin/usage", params={"account": world.account.id}))
        assert of_one["data"] == (await said(http.get("/v1/usage")))["data"]


async def test_usage_as_csv(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(money_routes, "MAX_ROWS", 2)
    world = a_world(database)
    secret = world.key()
    for days in range(5):
        charged(world, secret, 1_500_000_000 if days == 0 else 1, days_ago=days)
    async with world.serving(secret) as [http]:
        answer = await http.get("/v1/usage", params={"format": "csv"})
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["content-disposition"] == f"attachment; filename=usage-{today(29)}-{today()}.csv"
        rows = [*csv.DictReader(io.StringIO(answer.text))]
        assert [row["day"] for row in rows] == [today(4), today(3), today(2), today(1), today()]
        assert rows[-1]["cost"] == "1.5"


@ON_SQLITE
@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"start": "2026-13-01"}, "start"),
        ({"start": "20260101"}, "start"),
        ({"end": "yesterday"}, "end"),
        ({"end": "9999-12-31"}, "start"),
        ({"start": "2026-02-01", "end": "2026-01-01"}, "start"),
        ({"group_by": "account"}, "group_by"),
        ({"group_by": ""}, "group_by"),
        ({"format": "xml"}, "format"),
        ({"limit": "501"}, "limit"),
        ({"page": "x"}, "page"),
        ({"page": "é"}, "page"),
        ({"page": "WyJhIiwiYiJd"}, "page"),
        ({"page": "W10"}, "page"),
        ({"page": "WyJcdTAwMDAiXQ"}, "page"),
        ({"page": "W" * 5000}, "page"),
    ],
)
async def test_queries_that_are_refused(database: Database, query: Json, param: str) -> None:
    world = a_world(database)
    async with world.serving(world.key()) as [http]:
        check_error(await http.get("/v1/usage", params=query), 400, "invalid_value", param)


@ON_SQLITE
async def test_the_first_days_there_are(database: Database) -> None:
    world = a_world(database)
    async with world.serving(world.key()) as [http]:
        assert (await said(http.get("/v1/usage", params={"end": "0001-01-05"})))["start"] == "0001-01-01"


async def test_a_key_sees_nothing_of_another_account(database: Database) -> None:
    world = a_world(database)
    secret, of_other = world.key(), world.key(account=world.other)
    charged(world, secret, 1_000_000_000)
    async with world.serving(of_other) as [http]:
        assert (await said(http.get("/v1/credits")))["balance"] == "5"
        assert (await said(http.get("/v1/usage")))["data"] == []
        assert [one["kind"] for one in (await said(http.get("/v1/credits/entries")))["data"]] == ["sign_up"]
        for query in ({"account": world.account.id}, {"key": "key_1"}):
            answers: list[httpx.Response] = [
                await http.get(path, params=query) for path in ("/v1/usage", "/v1/credits", "/v1/credits/entries")
            ]
            assert not any(world.account.id in answer.text for answer in answers)
        for path in (f"credits/{world.account.id}", "usage", f"accounts/{world.account.id}", "keys", "audit"):
            check_error(await http.get(f"/v1/admin/{path}"), 403, "key_not_allowed", None)


@ON_SQLITE
async def test_an_account_that_is_not_there(database: Database) -> None:
    world = a_world(database)
    async with world.serving(world.admin) as [http]:
        for path in ("/v1/admin/credits/nobody", "/v1/admin/credits/nobody/entries"):
            check_error(await http.get(path), 404, "not_found", "account")
        assert (await said(http.get("/v1/admin/usage", params={"account": "nobody"})))["data"] == []


def test_when_budgets_begin_anew() -> None:
    at = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    assert resets_at("day", at) == resets_at("month", at) == datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    assert resets_at("month", datetime(2028, 2, 1, tzinfo=UTC)) == datetime(2028, 3, 1, tzinfo=UTC).timestamp()
    assert resets_at("total", at) is None
