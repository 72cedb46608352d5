"""Requests with an ``Idempotency-Key``: whoever asks the same again gets the same answer, and pays once.

Around the endpoints. Of requests with the same key of the same caller, one is done; the others wait for its answer, in
whatever router they are, and get it byte for byte. The answer is stored before its last bytes are sent: so whoever
loses the connection finds it, and whoever has got it never causes it to be done again.

- A request with an idempotency key is done to its end even if its client leaves: that is what the key is for.
- Only an answer that is complete and a success is stored, and only where a model gave it. After any other, the request
  is done anew.
- One that does not fit is not stored, and says so (``idempotent-stored: false``) where that is known when it begins.
- A router that dies while it works on an answer is taken over when its lease ends.
- What is owed for a stored answer is billed again with each replay, and counts once, as its id is the same: it may be
  that the router died after it was stored and before it was billed.

It knows no format of requests, and not how answers are made.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from accounts.answers import Answers, Asked, Found, StoredAnswer
from accounts.errors import AccountsUnavailable, StillRunning
from accounts.ids import random_name
from accounts.types import Settlement
from router.accounts.recorder import Recorder
from router.asgi.billing import access_of
from router.asgi.body import read_body
from router.asgi.deadline import give_up, until, while_connected
from router.asgi.threads import in_thread_if_large
from router.config import RouterConfig
from vlm.errors import InvalidRequest

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

HEADER = "idempotency-key"
REPLAYED = (b"idempotent-replayed", b"true")
LEASE_S = 20.0
"""How long after its last sign of life a request counts as running."""
RENEWED_S = 5.0
FIRST_LOOK_S, LONGEST_LOOK_S = 0.05, 1.0
"""Between two looks at whether another router has the answer. In the same router, whoever waits is told."""
MOST_WAITING = 64
"""Of one key of the caller, in one router, wait for answers that others make: no limit counts those, and each takes the
place of a request."""
THREADS = 4
REMOVAL_S = 60.0
"""Between two removals of what has expired, on average: routers do not all do it at the same time."""

_KEY = re.compile(r"[ -~]{1,255}")


class Idempotency:
    """The idempotency keys of one router; it belongs to one event loop.

    Args:
        answers: Where answers are kept, for ``LEASE_S`` while they are made.
        owe: Bills what is owed for an answer, once however often it is called.
        config: How large a request and an answer may be, and how long a request may wait.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        answers: Answers,
        owe: Callable[[Settlement], None],
        config: RouterConfig,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._answers = answers
        self._owe = owe
        self._config = config
        self._clock = clock
        self._threads = ThreadPoolExecutor(THREADS, "answers")  # so that nobody else waits for a slow database
        self._working: dict[tuple[str, str], asyncio.Event] = {}  # set when the request has ended
        self._waiting: Counter[str] = Counter()  # by the id of the caller's key

    def around(self, app: ASGIApp) -> ASGIApp:
        """``app``, whose requests are done once for each key."""
        return _Idempotent(self, app)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Remove answers that have expired, now and then until the end of the block; then nothing waits any more."""
        task = asyncio.create_task(self._keep_removing())
        try:
            yield
        finally:
            await give_up(task)
            await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Wait for what the database is asked at this moment; nothing more is asked."""
        self._threads.shutdown(cancel_futures=True)

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Do a request, or answer it as it was answered before.

        Raises:
            InvalidRequest: The idempotency key is none.
            KeyReused: It was used for another request.
            StillRunning: The same request runs, and takes longer than this one may wait, or too many wait already.
            AccountsUnavailable: It cannot be known whether it was done.
        """
        access, stated = access_of(scope), Headers(scope=scope).get(HEADER)
        if access is None or stated is None:
            await app(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self._config.request_timeout_s
        try:
            body = await until(deadline, read_body(scope, receive, self._config.max_body_bytes))
        except ClientDisconnect:
            return
        digest = await in_thread_if_large(len(body), _digest, scope, body)
        asked = Asked(access.caller, _checked(stated), digest, random_name())
        found = await self._claim(asked)
        if found.state == "running":
            with self._counted(asked.key):
                found = await self._wait(asked, receive, deadline)
        if found.answer is not None:
            await self._replay(found.answer, send)
        elif found.state == "ours":
            await self._do(app, asked, _Request(scope, _Body(body), send))

    async def _claim(self, asked: Asked) -> Found:
        return await self._in_thread(self._answers.claim, asked, self._now())

    @contextmanager
    def _counted(self, key: str) -> Iterator[None]:
        """One more that waits, until the end of the block."""
        if self._waiting[key] >= MOST_WAITING:
            raise StillRunning("Requests with this idempotency key run, and too many wait for their answers.")
        self._waiting[key] += 1
        try:
            yield
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]

    async def _wait(self, asked: Asked, receive: Receive, deadline: float) -> Found:
        """The answer, or the claim where the one that ran has given none; neither if the client leaves."""
        found = [Found("free")]

        async def wait() -> None:
            pause = FIRST_LOOK_S
            while (now := await self._claim(asked)).state == "running":
                if asyncio.get_running_loop().time() + pause >= deadline:
                    raise StillRunning("The request with this idempotency key still runs; try again in a moment.")
                await self._pause(asked, pause, deadline)
                pause = min(2 * pause, LONGEST_LOOK_S)
            found.append(now)

        await while_connected(receive, wait())
        return found.pop()

    async def _pause(self, asked: Asked, seconds: float, deadline: float) -> None:
        """Until it is worth looking again: so long, or until the request has ended if it runs in this router."""
        working = self._working.get((asked.key, asked.idempotency_key))
        if working is None:
            await asyncio.sleep(seconds)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline - seconds):
                await working.wait()

    async def _replay(self, answer: StoredAnswer, send: Send) -> None:
        for settlement in answer.settlements:
            self._owe(settlement)
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": [*headers, REPLAYED]})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})

    async def _do(self, app: ASGIApp, asked: Asked, request: _Request) -> None:
        name, ended = (asked.key, asked.idempotency_key), asyncio.Event()
        self._working[name] = ended

        async def store(answer: StoredAnswer) -> bool:
            return await self._store(asked, answer)

        recorder = Recorder(request.scope, request.send, store, self._config.max_stored_answer_bytes)
        renewing = asyncio.create_task(self._keep_renewing(asked))
        try:
            await app(request.scope, request.receive, recorder.send)
        finally:
            await give_up(renewing)
            if not recorder.is_stored:
                await asyncio.shield(self._release(asked))
            if self._working.get(name) is ended:
                del self._working[name]
            ended.set()

    async def _store(self, asked: Asked, answer: StoredAnswer) -> bool:
        """Whether it was stored. The client gets its answer in any case."""
        try:
            stored = await self._in_thread(self._answers.store, asked, answer, self._now())
        except AccountsUnavailable:
            stored = False
        if not stored:
            logger.warning("an answer with an idempotency key could not be stored")
        return stored

    async def _release(self, asked: Asked) -> None:
        with suppress(AccountsUnavailable):  # then its lease ends by itself
            await self._in_thread(self._answers.release, asked)

    async def _keep_renewing(self, asked: Asked) -> None:
        while True:
            await asyncio.sleep(RENEWED_S)
            with suppress(AccountsUnavailable):  # there are further times until the lease ends
                await self._in_thread(self._answers.renew, asked, self._now())

    async def _keep_removing(self) -> None:
        while True:
            await asyncio.sleep(REMOVAL_S * random.uniform(0.5, 1.5))  # noqa: S311  # not a secret
            with suppress(AccountsUnavailable):  # the next time does the same
                await self._in_thread(self._answers.remove_expired, self._now())

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``work`` returns.

        Raises:
            AccountsUnavailable: It takes longer than one waits for the database; it may be done all the same.
        """
        try:
            async with asyncio.timeout(self._config.accounts_patience_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))
        except TimeoutError:
            raise AccountsUnavailable("The accounts cannot be read now; try again.") from None

    def _now(self) -> int:
        return int(self._clock() * 1000)


class _Idempotent:
    """An endpoint as an ASGI application."""

    def __init__(self, idempotency: Idempotency, app: ASGIApp) -> None:
        self._idempotency = idempotency
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._idempotency.serve(self._app, scope, receive, send)


@dataclass(frozen=True, slots=True)
class _Request:
    """A request whose body was read."""

    scope: Scope
    receive: Receive
    send: Send


class _Body:
    """The ``receive`` of a request that is done to its end: the body, and never that the client has left."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    async def __call__(self) -> Message:
        if self._body is None:
            await asyncio.Event().wait()
        body, self._body = self._body or b"", None  # so that the bytes live only as long as they are needed
        return {"type": "http.request", "body": body, "more_body": False}


def _checked(stated: str) -> str:
    if not _KEY.fullmatch(stated):
        raise InvalidRequest("The header Idempotency-Key must have 1 to 255 printable ASCII characters.")
    return stated


def _digest(scope: Scope, body: bytes) -> bytes:
    """The same for the same method, path and body."""
    head = f"{scope['method']}\n{scope['path']}\n{len(body)}\n"
    return hashlib.sha256(head.encode("utf-8", errors="surrogateescape") + body).digest()
