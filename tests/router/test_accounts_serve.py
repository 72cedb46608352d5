"""Accounts on a cluster: a router of Serve's behind HAProxy, which is killed, with accounts in a file of SQLite."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from accounts import schema
from accounts.checking import differences
from accounts.database import Database, open_database
from accounts.directory import Directory, open_directory
from accounts.migrate import upgrade
from accounts.types import KeySpec
from router.app import build
from router.ingress import environment
from serve_args.cluster_environment import CLUSTER
from tests.router.accounts.world import bearer
from tests.router.cluster import WITHOUT_TOKEN, cluster
from tests.router.test_front_serve import process
from tests.router.test_haproxy import ROUTER, free_ports
from tests.router.test_serve import deploy, eventually
from tests.router.world import CHAT, body, check_error

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore"),  # Ray's own warnings are not ours to fix
    pytest.mark.skipif(sys.platform != "linux", reason="HAProxy comes with Ray on Linux alone"),
]

ACTOR = "command:test"
PRICE = 600_000


@dataclass(frozen=True)
class Shop:
    """A cluster with accounts: where it is, and its database."""

    http: httpx.Client
    database: Database
    directory: Directory

    def key(self) -> str:
        """The secret of a new key, with a budget, so that money is held for its requests."""
        [account] = [one for one in self.directory.accounts() if one.name == "cameras"]
        spec = KeySpec("test", budgets={"total": 1000 * PRICE})
        return self.directory.create_key(account.id, spec, ACTOR).secret

    def ask(self, secret: str, request_id: str, *, stream: bool = False) -> bool:
        """Whether a request is answered to its end."""
        headers = {**bearer(secret), "x-request-id": request_id}
        try:
            answer = self.http.post(CHAT, json=body("", stream=stream), headers=headers)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200 and (not stream or "data: [DONE]" in answer.text)

    def billed(self) -> Counter[str]:
        """How often each request was."""
        entries = schema.entries.c
        with self.database.read() as connection:
            return Counter(connection.execute(select(entries.request_id).where(entries.kind == "charge")).scalars())


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder: Path = tmp_path_factory.mktemp("accounts")
    url = f"sqlite:///{folder}/accounts.db"
    database = open_database(url)
    upgrade(database)
    directory = open_directory(database)
    owner = directory.create_organisation("shop", ACTOR)
    directory.create_account(owner.id, "cameras", ACTOR, prepaid=False)
    args: dict[str, Any] = {
        "database_url": url, "outbox_folder": str(folder), "prices": {"blip-large": "0.6"}, **WITHOUT_TOKEN,
    }  # fmt: skip
    front = environment({"applications": [{"import_path": "router.app:build", "args": args}]})
    at_once = {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0", "RAY_raylet_start_wait_time_s": "120"}
    with cluster({**CLUSTER, **front, **free_ports(), **at_once}) as port:
        from ray import serve

        deploy("blip-large")
        serve.run(build(args), name="router", route_prefix="/")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            eventually(lambda: http.get("/readyz").status_code == 200)
            yield Shop(http, database, directory)
    database.close()


def test_who_brings_no_key_is_refused_before_the_body_is_read(shop: Shop) -> None:
    check_error(shop.http.post(CHAT, json=body("")), 401, None, None)
    check_error(shop.http.post(CHAT, json=body(""), headers=bearer("gr-" + "x" * 43)), 401, "invalid_api_key", None)
    assert shop.http.get("/readyz").status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_billed(shop: Shop, *, stream: bool) -> None:
    name = f"one-{stream}"
    assert shop.ask(shop.key(), name, stream=stream)
    eventually(lambda: shop.billed()[name] == 1)


def test_a_key_that_is_revoked_is_refused_within_a_second(shop: Shop) -> None:
    secret = shop.key()
    assert shop.ask(secret, "before")
    key = shop.directory.find(shop.directory.digest(secret))
    assert key is not None
    shop.directory.revoke_key(key.id, ACTOR)
    eventually(lambda: not shop.ask(secret, "after"), patience_s=5)


def test_what_a_router_had_answered_before_it_was_killed_is_billed_and_nothing_else(shop: Shop) -> None:
    secret = shop.key()
    answered = {name for name in (f"killed-{number}" for number in range(20)) if shop.ask(secret, name)}
    assert len(answered) == 20
    os.kill(process(ROUTER), signal.SIGKILL)  # what it has answered last is not in the database yet
    eventually(lambda: shop.ask(secret, "killed-afterwards"), patience_s=60)
    expected = {*answered, "killed-afterwards"}
    eventually(lambda: expected <= shop.billed().keys(), patience_s=30)
    billed = {name: count for name, count in shop.billed().items() if name.startswith("killed-")}
    assert billed == dict.fromkeys(expected, 1)
    assert not differences(shop.database)
