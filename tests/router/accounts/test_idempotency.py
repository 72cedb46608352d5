"""Requests with an idempotency key: done once, and answered alike, over HTTP and on both databases."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from accounts.answers import Answers, Asked, Found, StoredAnswer
from accounts.database import Database
from accounts.directory import open_directory
from accounts.errors import AccountsUnavailable
from accounts.schema import answers
from accounts.types import Charge, KeySpec, Settlement
from router.accounts import idempotency as module
from router.accounts.idempotency import Idempotency
from router.asgi.billing import ACCESS_KEY, BILL_KEY
from router.asgi.errors import on_vlm_error
from router.asgi.middleware import RequestMiddleware
from router.config import RouterConfig
from vlm.errors import EngineFailure, VlmError

pytestmark = pytest.mark.anyio
Json = dict[str, Any]

MOST_BYTES = 1000
KEPT_MS, LEASE_MS = 60_000, 20_000
SAME = {"idempotency-key": "order 66"}


@dataclass
class Bill:
    """What a request owes, once it is known."""

    owed: Sequence[Settlement] | None = None


@dataclass(frozen=True)
class Access:
    """Whose request it is; the rest of an access is of no use here."""

    caller: str


@dataclass
class Model:
    """An endpoint that does as its request's body says, and counts how often.

    Attributes:
        asked: Bodies of the requests.
        may_end: While it is clear, answers wait.
        ended: How many it has made.
        told_that_client_left: How often, before the answer was made.
    """

    asked: list[bytes] = field(default_factory=list)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    ended: int = 0
    told_that_client_left: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        self.asked.append(body)
        wanted, number = json.loads(body), len(self.asked)
        leaving = asyncio.ensure_future(receive())
        await self.may_end.wait()
        self.told_that_client_left += leaving.done()
        leaving.cancel()
        bill = scope[BILL_KEY] = Bill()
        if "fails" in wanted:
            raise EngineFailure("It broke.")
        await (self.stream if wanted.get("stream") else self.whole)(wanted, number, bill, send)
        self.ended += 1

    async def whole(self, wanted: Json, number: int, bill: Bill, send: Send) -> None:
        said = (f"answer {number}" + "." * wanted.get("long", 0)).encode()
        bill.owed = [settlement(number)]
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(said)).encode()),
                   (b"x-gigarouter-model", "mödel".encode("latin-1"))]  # fmt: skip
        await send({"type": "http.response.start", "status": wanted.get("status", 200), "headers": headers})
        await send({"type": "http.response.body", "body": said})

    async def stream(self, wanted: Json, number: int, bill: Bill, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in range(wanted.get("parts", 3)):
            await send({"type": "http.response.body", "body": f"data: {part}\n\n".encode(), "more_body": True})
        if wanted.get("breaks"):
            last = b"data: error\n\n"
        else:
            bill.owed = [settlement(number)]
            last = f"data: answer {number}\n\ndata: [DONE]\n\n".encode()
        await send({"type": "http.response.body", "body": last, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def settlement(number: int) -> Settlement:
    charge = Charge("m", ("caption",), 1, 0, 5, 7)
    return Settlement(f"hold_{number}", "acct_a", "key_a", 17, charge, "completed", f"req_{number}", 1, "list")


@dataclass
class World:
    """A router, or one of several with the same database."""

    answers: Answers
    model: Model
    owed: list[Settlement]
    app: ASGIApp
    http: httpx.AsyncClient
    keys: tuple[str, str]
    clock: Clock
    idempotency: Idempotency

    async def ask(self, wanted: Json | None = None, *, key: int = 0, path: str = "/v1/a", **headers: str) -> Any:
        sent = {**SAME, "x-key": self.keys[key], **{name.replace("_", "-"): text for name, text in headers.items()}}
        return await self.http.post(path, json=wanted or {}, headers=sent)

    def rows(self) -> int:
        """Number of answers and claims."""
        return self.answers.remove_expired(10**15)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def identified(app: ASGIApp) -> ASGIApp:
    """What knows keys."""

    async def ask(scope: Scope, receive: Receive, send: Send) -> None:
        if caller := dict(scope["headers"]).get(b"x-key"):
            scope[ACCESS_KEY] = Access(caller.decode())
        await app(scope, receive, send)

    return ask


def world_of(database: Database, keys: tuple[str, str], clock: Clock) -> World:
    config = RouterConfig(max_stored_answer_bytes=MOST_BYTES, request_timeout_s=30.0)
    answers, owed, model = Answers(database, lease_ms=LEASE_MS, kept_ms=KEPT_MS), list[Settlement](), Model()
    model.may_end.set()
    idempotency = Idempotency(answers, owed.append, config, clock)
    routes = [Route(path, idempotency.around(model), methods=["POST"]) for path in ("/v1/a", "/v1/b")]
    app = RequestMiddleware(identified(Starlette(routes=routes, exception_handlers={VlmError: on_vlm_error})))
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router")
    return World(answers, model, owed, app, http, keys, clock, idempotency)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def keys(database: Database) -> tuple[str, str]:
    directory = open_directory(database)
    organisation = directory.create_organisation("shop", "command:test")
    account = directory.create_account(organisation.id, "cameras", "command:test")
    one, other = (directory.create_key(account.id, KeySpec(name), "command:test").key for name in ("a", "b"))
    return one.id, other.id


@pytest.fixture
async def two(database: Database, keys: tuple[str, str]) -> AsyncIterator[tuple[World, World]]:
    clock = Clock()
    one, other = (world_of(database, keys, clock) for _ in range(2))
    async with one.http, other.http:
        yield one, other
    for world in (one, other):
        await asyncio.to_thread(world.idempotency.close)  # before the database is closed


@pytest.fixture
def world(two: tuple[World, World]) -> World:
    return two[0]


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


STREAM = {"stream": True}


@pytest.mark.parametrize("wanted", [{}, STREAM])
async def test_the_same_again_gets_the_same_byte_for_byte(two: tuple[World, World], wanted: Json) -> None:
    first = await two[0].ask(wanted)
    assert first.status_code == 200
    assert "answer 1" in first.text
    assert "idempotent-replayed" not in first.headers
    for world in two:
        again = await world.ask(wanted)
        assert (again.status_code, again.content) == (200, first.content)
        assert again.headers["idempotent-replayed"] == "true"
        ours = ("x-request-id", "openai-processing-ms", "idempotent-replayed")
        assert Counter(item for item in again.headers.raw if item[0].decode() not in ours) == Counter(
            item for item in first.headers.raw if item[0].decode() not in ours
        )
        assert again.headers["x-request-id"] != first.headers["x-request-id"]
        assert world.owed == [settlement(1)], "which is counted once, as its id is the same"
    assert len(two[0].model.asked) + len(two[1].model.asked) == 1


async def test_without_an_idempotency_key_or_an_access_it_is_done_each_time(world: World) -> None:
    for headers in ({"x-key": world.keys[0]}, SAME):
        for _ in range(2):
            assert (await world.http.post("/v1/a", json={}, headers=headers)).status_code == 200
    assert len(world.model.asked) == 4
    assert world.rows() == 0


@pytest.mark.parametrize(("wanted", "path"), [({"more": 1}, "/v1/a"), ({}, "/v1/b")])
async def test_for_another_request_the_key_is_refused(world: World, wanted: Json, path: str) -> None:
    await world.ask()
    other = await world.ask(wanted, path=path)
    assert (other.status_code, other.json()["error"]["code"]) == (400, "idempotency_key_reused")
    assert other.headers["x-should-retry"] == "false"
    assert len(world.model.asked) == 1


async def test_so_it_is_while_the_first_one_runs(two: tuple[World, World]) -> None:
    two[0].model.may_end.clear()
    first = asyncio.create_task(two[0].ask())
    await until(lambda: two[0].model.asked)
    for world in two:
        assert (await world.ask({"more": 1})).status_code == 400
    two[0].model.may_end.set()
    assert (await first).status_code == 200


async def test_answers_of_another_key_are_not_seen(world: World) -> None:
    mine, theirs = await world.ask(key=0), await world.ask(key=1)
    assert (mine.text, theirs.text) == ("answer 1", "answer 2")
    assert (await world.ask({"another": 1}, key=1)).status_code == 400
    assert (await world.ask(key=0)).text == "answer 1"


async def test_of_twenty_at_once_one_is_done(world: World) -> None:
    world.model.may_end.clear()
    asking = [asyncio.create_task(world.ask()) for _ in range(20)]
    await until(lambda: world.model.asked)
    await asyncio.sleep(0.1)
    world.model.may_end.set()
    answers = await asyncio.gather(*asking)
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, "answer 1")}
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 19
    assert len(world.model.asked) == 1


async def test_who_waits_in_the_same_router_does_not_ask_the_database_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that any number of them keeps nobody from storing an answer, or saying that it still works on one."""
    looks: list[Asked] = []
    claim = Answers.claim

    def counted(answers: Answers, asked: Asked, now: int) -> Found:
        looks.append(asked)
        return claim(answers, asked, now)

    monkeypatch.setattr(Answers, "claim", counted)
    world.model.may_end.clear()
    asking = [asyncio.create_task(world.ask()) for _ in range(10)]
    await until(lambda: len(looks) >= 19)  # each before it waits, and those that wait once more
    await asyncio.sleep(1)
    world.model.may_end.set()
    assert {answer.text for answer in await asyncio.gather(*asking)} == {"answer 1"}
    assert len(looks) <= 10 + 9 + 9 + 9, "once more when there is an answer"


async def test_too_many_who_wait_are_told_to_try_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They count for no limit of the key, and take the places of others."""
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    world.model.may_end.clear()
    asking = [asyncio.create_task(world.ask()) for _ in range(10)]
    await until(lambda: sum(one.done() for one in asking) == 6)
    other = asyncio.create_task(world.ask(key=1))
    await until(lambda: len(world.model.asked) == 2)
    world.model.may_end.set()
    answers = await asyncio.gather(*asking)
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [409] * 6
    assert (await other).status_code == 200
    assert (await world.ask()).text == "answer 1"


async def test_of_twenty_at_two_routers_one_is_done(two: tuple[World, World]) -> None:
    answers = await asyncio.gather(*(world.ask(STREAM) for _ in range(10) for world in two))
    assert len({(answer.status_code, answer.content) for answer in answers}) == 1
    assert len(two[0].model.asked) + len(two[1].model.asked) == 1


@pytest.mark.parametrize(
    ("wanted", "status"),
    [({"fails": 1}, 500), ({"status": 404}, 404), ({"status": 302}, 302), ({**STREAM, "breaks": 1}, 200)],
)
async def test_failures_are_not_stored(world: World, wanted: Json, status: int) -> None:
    for number in (1, 2):
        answer = await world.ask(wanted)
        assert answer.status_code == status
        assert "idempotent-replayed" not in answer.headers
        assert len(world.model.asked) == number
    assert world.rows() == 0


async def test_after_a_failure_one_of_those_who_wait_does_it(world: World) -> None:
    world.model.may_end.clear()
    asking = [asyncio.create_task(world.ask({"fails": 1})) for _ in range(4)]
    await until(lambda: world.model.asked)
    world.model.may_end.set()
    answers = await asyncio.gather(*asking)
    assert [answer.status_code for answer in answers] == [500] * 4
    assert len(world.model.asked) == 4


async def test_what_is_too_long_is_not_stored_and_says_so(world: World) -> None:
    fits = {"long": MOST_BYTES - len("answer 1")}
    assert "idempotent-stored" not in (await world.ask(fits)).headers
    assert "idempotent-replayed" in (await world.ask(fits)).headers
    for number in (2, 3):
        answer = await world.ask({"long": MOST_BYTES}, idempotency_key="long")
        assert answer.headers["idempotent-stored"] == "false"
        assert len(world.model.asked) == number


async def test_a_stream_that_becomes_too_long_is_sent_and_not_stored(world: World) -> None:
    for number in (1, 2):
        answer = await world.ask({**STREAM, "parts": 500})
        assert answer.text.count("data:") == 502
        assert len(world.model.asked) == number
    assert world.rows() == 0


async def test_answers_expire_and_are_removed(world: World) -> None:
    await world.ask()
    await world.ask(idempotency_key="another")
    world.clock.now += KEPT_MS / 1000 - 1
    assert (await world.ask()).text == "answer 1"
    world.clock.now += 1
    assert (await world.ask({"new": 1})).text == "answer 3"
    assert world.answers.remove_expired(int(world.clock.now * 1000)) == 1
    assert (await world.ask({"new": 1})).text == "answer 3"


async def test_expired_rows_are_removed_while_nobody_asks(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMOVAL_S", 0.01)
    await world.ask()
    world.clock.now += KEPT_MS
    idempotency = Idempotency(world.answers, world.owed.append, RouterConfig(), world.clock)

    def rows() -> int:
        with database.read() as connection:
            return len(connection.execute(select(answers)).all())

    assert rows() == 1
    async with idempotency.running():
        await until(lambda: rows() == 0)


async def test_many_expired_rows_are_removed_in_portions(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accounts.answers.REMOVED_AT_ONCE", 3)
    for number in range(8):
        world.answers.claim(Asked(world.keys[0], f"{number}", b"d" * 32, "owner"), 0)
    assert world.answers.remove_expired(LEASE_MS - 1) == 0
    assert world.answers.remove_expired(LEASE_MS) == 8


@pytest.mark.parametrize("stated", ["", "a" * 256, "schlüssel", "a\tb"])
async def test_a_key_that_is_none_is_refused(world: World, stated: str) -> None:
    answer = await world.http.post(
        "/v1/a", json={}, headers=[(b"idempotency-key", stated.encode("latin-1")), (b"x-key", world.keys[0].encode())]
    )
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert not world.model.asked


async def test_every_key_that_is_one_is_kept_apart(world: World) -> None:
    stated = ["a", "A", "~" * 255, "' or 1=1 --", "%s", "a b"]
    assert len({(await world.ask(idempotency_key=key)).text for key in stated}) == len(stated)


# Owners that die


async def test_of_an_owner_that_died_it_is_taken_over_when_its_lease_ends(world: World) -> None:
    first = Asked(world.keys[0], SAME["idempotency-key"], b"x" * 32, "dead")
    await world.ask({"learn": "the digest"})
    assert world.rows() == 1
    assert world.answers.claim(first, int(world.clock.now * 1000)).state == "ours"
    assert (await world.ask()).status_code == 400, "it is not known yet that it died"
    world.clock.now += LEASE_MS / 1000
    assert (await world.ask()).text == "answer 2"
    assert not world.answers.store(first, StoredAnswer(200, (), b"late", ()), 0), "it is not its own any more"
    assert (await world.ask()).text == "answer 2"


async def test_who_waits_for_a_dead_one_takes_over(two: tuple[World, World]) -> None:
    one, other = two
    one.model.may_end.clear()
    asking = asyncio.create_task(one.ask())
    await until(lambda: one.model.asked)
    waiting = asyncio.create_task(other.ask())
    await asyncio.sleep(0.1)
    assert not other.model.asked
    one.clock.now += LEASE_MS / 1000
    assert (await waiting).text == "answer 1"
    assert len(other.model.asked) == 1
    one.model.may_end.set()
    assert (await asking).status_code == 200, "a client gets its answer although another one is stored"
    assert "idempotent-replayed" in (await one.ask()).headers


async def test_who_works_says_so_until_it_is_done(two: tuple[World, World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEWED_S", 0.02)
    one, other = two
    renew, renewed = one.answers.renew, [0]

    def noting(asked: Asked, now: int) -> None:
        renew(asked, now)
        renewed.append(now)

    monkeypatch.setattr(one.answers, "renew", noting)
    one.model.may_end.clear()
    asking = asyncio.create_task(one.ask())
    await until(lambda: one.model.asked)
    waiting = asyncio.create_task(other.ask())
    for _ in range(4):
        one.clock.now += LEASE_MS / 1000 / 2
        await until(lambda: renewed[-1] >= one.clock.now * 1000)
    assert not other.model.asked
    one.model.may_end.set()
    assert (await asking).text == (await waiting).text == "answer 1"


async def test_who_has_waited_for_long_enough_is_told_to_try_again(two: tuple[World, World]) -> None:
    one, _ = two
    one.model.may_end.clear()
    asking = asyncio.create_task(one.ask())
    await until(lambda: one.model.asked)
    config = RouterConfig(request_timeout_s=0.3)
    impatient = Idempotency(one.answers, one.owed.append, config, one.clock)
    routes = [Route("/v1/a", impatient.around(one.model), methods=["POST"])]
    app = identified(Starlette(routes=routes, exception_handlers={VlmError: on_vlm_error}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router") as http:
        answer = await http.post("/v1/a", json={}, headers={**SAME, "x-key": one.keys[0]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "idempotency_key_in_use")
    assert answer.headers["retry-after"] == "1"
    assert "x-should-retry" not in answer.headers
    one.model.may_end.set()
    await asking
    await asyncio.to_thread(impatient.close)


# Clients that leave


@dataclass
class Caller:
    """A client that reads so many messages of its answer and leaves, in either of the ways that servers know.

    Attributes:
        raises: Whether the server tells it by an error when something is sent to it.
    """

    world: World
    wanted: Json
    reads: int
    raises: bool
    got: list[Message] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: bool = False

    async def call(self) -> None:
        headers = [(b"idempotency-key", b"order 66"), (b"x-key", self.world.keys[0].encode())]
        scope = {"type": "http", "method": "POST", "path": "/v1/a", "raw_path": b"/v1/a", "headers": headers,
                 "query_string": b"", "root_path": ""}  # fmt: skip
        await self.world.app(scope, self.receive, self.send)

    async def receive(self) -> Message:
        if not self.arrived:
            self.arrived = True
            return {"type": "http.request", "body": httpx.Request("POST", "/", json=self.wanted).content}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if len(self.got) >= self.reads:
            self.left.set()
            if self.raises:
                raise OSError("the connection is closed")
            return
        self.got.append(message)


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize(("wanted", "reads"), [({}, 0), ({}, 1), (STREAM, 0), (STREAM, 2), (STREAM, 5)])
async def test_a_client_that_leaves_finds_its_answer(world: World, wanted: Json, reads: int, *, raises: bool) -> None:
    caller = Caller(world, wanted, reads, raises)
    await caller.call()
    answer = await world.ask(wanted)
    assert answer.headers["idempotent-replayed"] == "true"
    body = b"".join(message["body"] for message in caller.got[1:])
    assert answer.content.startswith(body)
    assert world.model.ended == 1


async def test_a_client_that_leaves_while_it_is_done_finds_its_answer(world: World) -> None:
    world.model.may_end.clear()
    caller = Caller(world, {}, 0, raises=True)
    calling = asyncio.create_task(caller.call())
    await until(lambda: world.model.asked)
    caller.left.set()
    waiting = asyncio.create_task(world.ask())
    await asyncio.sleep(0.05)
    world.model.may_end.set()
    await calling
    assert (await waiting).text == "answer 1"
    assert len(world.model.asked) == 1
    assert world.model.told_that_client_left == 0


async def test_who_waits_and_leaves_is_waited_for_no_longer(world: World) -> None:
    world.model.may_end.clear()
    asking = asyncio.create_task(world.ask())
    await until(lambda: world.model.asked)
    caller = Caller(world, {}, 9, raises=False)
    calling = asyncio.create_task(caller.call())
    await asyncio.sleep(0.1)
    caller.left.set()
    await asyncio.wait_for(calling, 20)
    assert caller.got == []
    world.model.may_end.set()
    await asking


async def test_what_is_cancelled_is_done_anew(world: World) -> None:
    world.model.may_end.clear()
    asking = asyncio.create_task(world.ask())
    await until(lambda: world.model.asked)
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    world.model.may_end.set()
    assert (await world.ask()).text == "answer 2"


async def test_an_answer_is_stored_before_its_last_bytes_are_sent(world: World) -> None:
    """So nobody who has them causes it to be done again, whenever the router dies."""
    stored_at: list[int] = []
    store = world.answers.store

    def noting(asked: Asked, answer: StoredAnswer, now: int) -> bool:
        stored_at.append(len(caller.got))
        return store(asked, answer, now)

    world.answers.store = noting  # type: ignore[method-assign]
    for wanted, sent in (({}, 1), (STREAM, 4)):
        caller = Caller(world, wanted, 100, raises=False)
        await caller.call()
        assert stored_at.pop() == sent
        assert world.rows() == 1


# A database that is away


async def test_without_the_database_nothing_is_done(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.answers, "claim", gone)
    answer = await world.ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "accounts_unavailable")
    assert not world.model.asked


async def test_an_answer_that_cannot_be_stored_is_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.answers, "store", gone)
    monkeypatch.setattr(world.answers, "release", gone)
    assert (await world.ask()).text == "answer 1"
    monkeypatch.undo()
    world.clock.now += LEASE_MS / 1000
    assert (await world.ask()).text == "answer 2"


def gone(*_: object) -> None:
    raise AccountsUnavailable("The accounts cannot be read now; try again.")
