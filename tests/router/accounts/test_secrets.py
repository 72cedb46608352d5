"""No secret of a key is anywhere but in the one answer that tells it: all routes are driven, and all is logged."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from accounts import schema
from accounts.errors import AccountsUnavailable
from accounts.keys import NewKey, new_secret
from accounts.types import Key, KeySpec
from router.accounts.keyring import Keyring
from router.openapi.document import document_bytes, operations_of
from tests.router.accounts.bank import Bank, bank
from tests.router.accounts.books import ON_SQLITE
from tests.router.accounts.world import bearer
from tests.router.world import body

Json = dict[str, Any]

pytestmark = pytest.mark.anyio


class Everything(logging.Handler):
    """Keeps all that any logger says: messages, arguments, exceptions, and whatever else hangs on a record."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        told = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        self.said.append(f"{record.getMessage()} {record.__dict__!r} {told}")


@pytest.fixture
def logged() -> Iterator[Everything]:
    """All loggers at DEBUG, those too that do not pass on what they are told."""
    handler, root = Everything(), logging.getLogger()
    named = [one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    levels = {one: one.level for one in (root, *named)}
    for one in levels:
        one.setLevel(logging.DEBUG)
    alone = [one for one in named if not one.propagate]
    for one in (root, *alone):
        one.addHandler(handler)
    yield handler
    for one in (root, *alone):
        one.removeHandler(handler)
    for one, level in levels.items():
        one.setLevel(level)


BODIES: list[Json | bytes] = [
    {},
    {"name": "n", "account": "nobody", "organisation": "nobody", "amount": "1"},
    {"name": 7, "surprise": 1},
    b"{",
]


async def drive(world: Bank, secrets: list[str]) -> list[httpx.Response]:
    """Every route with every key, in either header, with good and bad bodies."""
    http, answers = world.http, []
    for operation in operations_of(http._transport.app.routes):  # type: ignore[attr-defined]
        path, method = operation[0].replace("{id}", "nobody"), operation[1].method
        for number, secret in enumerate(secrets):
            headers = bearer(secret) if number % 2 else {"x-moondream-auth": secret}
            bodies = BODIES if method in ("POST", "PATCH") else [b""]
            for content in bodies:
                raw = content if isinstance(content, bytes) else json.dumps(content).encode()
                answers.append(await http.request(method, path, headers=headers, content=raw))
    return answers


@ON_SQLITE
async def test_no_secret_is_told_twice(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path, logged: Everything
) -> None:
    wrong = new_secret()
    async with bank(monkeypatch, database_url, tmp_path / "outbox") as world:
        good, admin = world.key(), world.key(scopes=frozenset({"admin"}))
        expired = world.key(expires_at=1)
        headers = bearer(admin)
        made = (
            await world.http.post("/v1/admin/keys", json={"account": world.account, "name": "n"}, headers=headers)
        ).json()
        rotated = (await world.http.post(f"/v1/admin/keys/{made['id']}/rotate", headers=headers)).json()
        secrets = [good, admin, expired, wrong, made["secret"], rotated["secret"], f"{wrong}x", f"Bearer {good}"]
        assert (await world.ask(good, body())).status_code == 200
        answers = await drive(world, secrets)
        statuses = {answer.status_code for answer in answers}
        assert {200, 400, 401, 403, 404} <= statuses <= {200, 400, 401, 403, 404, 429}, statuses
        document = document_bytes(operations_of(world.http._transport.app.routes)).decode()  # type: ignore[attr-defined]
        await world.charges()
    said = "\n".join(logged.said)
    assert "/v1/admin/keys" in said, "the access log was seen"
    told = [document, said, *(f"{answer.text} {answer.headers!r}" for answer in answers)]
    kept = [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert any("acct_" in text for text in kept), "the database was seen"
    for secret in (good, admin, expired, wrong, made["secret"], rotated["secret"]):
        for text in (*told, *kept):
            assert secret[7:] not in text


@ON_SQLITE
async def test_no_secret_is_in_what_goes_wrong(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path, logged: Everything
) -> None:
    """Neither the database's own words nor an exception that nobody expects repeat a secret or the URL."""
    async with bank(monkeypatch, database_url, tmp_path / "outbox", accounts_patience_s=0.2) as world:
        good = world.key()
        directory = world.service.accounts.directory
        for error in (AccountsUnavailable("Accounts do not answer."), RuntimeError(good, database_url)):

            def fails(_digest: bytes, error: Exception = error) -> Key:
                raise error

            monkeypatch.setattr(type(directory), "find", lambda self, digest, fails=fails: fails(digest))
            answer = await world.ask(good, body())
            assert answer.status_code in (500, 503)
            assert good not in f"{answer.text} {answer.headers!r}"
            assert database_url not in answer.text
    said = "\n".join(logged.said)
    assert "unexpected RuntimeError" in said
    assert good not in said
    assert database_url not in said


def test_no_secret_is_in_a_repr_or_a_row() -> None:
    secret = new_secret()
    key = Key("key_1", "acct_1", spec=KeySpec("n"), hint=secret[:7], prepaid=True, created_at=0)
    made = NewKey(key, secret)
    keyring = Keyring(_Nobody(), lambda text: text.encode(), patience_s=1.0)
    for thing in (key, made, keyring, vars(keyring)):
        assert secret[7:] not in repr(thing)
    assert not {column.name for column in schema.keys.columns} & {"secret", "key", "token"}


class _Nobody:
    def find(self, digest: bytes) -> Key | None:
        return None

    def version(self) -> int:
        return 0

    def used(self, key_ids: Any, at: int) -> None:
        """Nothing is kept."""
