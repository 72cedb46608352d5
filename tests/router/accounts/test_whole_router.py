"""The whole router with accounts: keys, their routes and their limits, as one application."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from accounts.books import Books
from accounts.grants import Balance
from accounts.keys import new_secret
from accounts.types import Limits
from tests.images import plain
from tests.router.accounts.bank import CAPTION, bank
from tests.router.accounts.books import ON_SQLITE
from tests.router.accounts.world import bearer
from tests.router.world import body, check_error

pytestmark = [pytest.mark.anyio, ON_SQLITE]


async def test_a_key_asks_and_sees_what_it_paid(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    async with bank(monkeypatch, database_url, tmp_path / "outbox", key_limits={"*": {"requests": 60}}) as world:
        secret = world.key(budgets={"day": 1_000 * CAPTION})
        answer = await world.ask(secret, body(task="caption"))
        assert answer.status_code == 200
        assert answer.headers["x-ratelimit-limit-requests"] == "60"
        assert answer.headers["x-ratelimit-remaining-requests"] == "59"
        await world.charges()
        headers = bearer(secret)
        key = (await world.http.get("/v1/key", headers=headers)).json()
        assert key["limits"]["*"]["requests"] == 60, "the limits that hold, although they are the operator's"
        credit = (await world.http.get("/v1/credits", headers=headers)).json()
        assert credit["balance"] == "-0.00073"
        assert credit["budgets"]["day"]["available"] == "0.72927"
        [used] = (await world.http.get("/v1/usage", params={"group_by": "key"}, headers=headers)).json()["data"]
        assert (used["key"], used["requests"], used["cost"]) == (key["id"], 1, "0.00073")
        [entry] = (await world.http.get("/v1/credits/entries", headers=headers)).json()["data"]
        assert (entry["request_id"], entry["amount"]) == (answer.headers["x-request-id"], "-0.00073")


async def test_a_limit_that_is_reached(monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path) -> None:
    async with bank(monkeypatch, database_url, tmp_path / "outbox") as world:
        secret = world.key(limits={"*": Limits(requests=2)})
        for _ in range(2):
            assert (await world.ask(secret, body())).status_code == 200
        answer = await world.ask(secret, body())
        error = check_error(answer, 429, "rate_limit_exceeded", None)
        assert error["type"] == "requests"
        assert 0 < int(answer.headers["retry-after-ms"]) <= 1000 * int(answer.headers["retry-after"]) <= 61_000
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        assert (await world.http.get("/v1/key", headers=bearer(secret))).status_code == 200, "which no model answers"


async def test_a_slow_database_leaves_the_event_loops_threads_to_others(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    answers = threading.Event()

    def balance(_books: Books, _account: str) -> Balance:
        answers.wait(30)
        return Balance(0, 0, prepaid=True)

    monkeypatch.setattr(Books, "balance", balance)
    async with bank(monkeypatch, database_url, tmp_path / "outbox") as world:
        headers = bearer(world.key())
        asked = [asyncio.create_task(world.http.get("/v1/credits", headers=headers)) for _ in range(100)]
        try:
            await asyncio.sleep(0.5)  # all of them wait
            assert await asyncio.wait_for(asyncio.to_thread(sum, (1, 2)), 10) == 3
            assert (await world.ask(world.key(), body())).status_code == 200
        finally:
            answers.set()
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}


async def test_too_many_wrong_keys(monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path) -> None:
    async with bank(monkeypatch, database_url, tmp_path / "outbox", failed_keys_per_minute=3) as world:
        good = world.key()
        assert (await world.ask(good, body())).status_code == 200
        for _ in range(3):
            check_error(await world.ask(new_secret(), body()), 401, "invalid_api_key", None)
        answer = await world.ask(new_secret(), body())
        check_error(answer, 429, "rate_limit_exceeded", None)
        assert 1 <= int(answer.headers["retry-after"]) <= 61
        check_error(await world.ask("sk-of-another-service", body()), 401, "invalid_api_key", None)
        assert (await world.ask(good, body())).status_code == 200, "whoever was let in before still is"


async def test_a_revoked_key_is_refused_by_another_router(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    async with (
        bank(monkeypatch, database_url, tmp_path / "one") as one,
        bank(monkeypatch, database_url, tmp_path / "other") as other,
    ):
        secret, admin = one.key(), one.key(scopes=frozenset({"admin"}))
        key = (await other.http.get("/v1/key", headers=bearer(secret))).json()
        assert (await one.http.delete(f"/v1/admin/keys/{key['id']}", headers=bearer(admin))).status_code == 200
        check_error(await one.ask(secret, body()), 401, "invalid_api_key", None)
        while (await other.http.get("/v1/key", headers=bearer(secret))).status_code == 200:
            await asyncio.sleep(0.01)  # the test's time limit ends this; without a pause, nothing else had a turn
        check_error(await other.ask(secret, body()), 401, "invalid_api_key", None)


async def test_files_belong_to_a_key_whatever_its_secret(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    files_url = str(tmp_path / "files")
    async with bank(monkeypatch, database_url, tmp_path / "outbox", files_url=files_url) as world:
        secret, other, admin = world.key(), world.key(), world.key(scopes=frozenset({"admin"}))
        sent = {"file": ("cat.png", plain(8, 6))}
        data = {"purpose": "vision"}
        file = (await world.http.post("/v1/files", files=sent, data=data, headers=bearer(secret))).json()
        path = f"/v1/files/{file['id']}"
        check_error(await world.http.get(path, headers=bearer(other)), 404, "file_not_found", "id")
        check_error(await world.http.get(path, headers=bearer(admin)), 403, "key_not_allowed", None)
        key = (await world.http.get("/v1/key", headers=bearer(secret))).json()["id"]
        rotated = (await world.http.post(f"/v1/admin/keys/{key}/rotate", headers=bearer(admin))).json()["secret"]
        assert (await world.http.get(path, headers=bearer(rotated))).status_code == 200
        check_error(await world.http.get(path, headers=bearer(secret)), 401, "invalid_api_key", None)
