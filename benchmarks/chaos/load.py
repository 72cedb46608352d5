"""Clients that ask questions whose answers they know, at a modest rate, and write down how each request ended."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from benchmarks.asking import Outcome, Question, falling_back, known_questions, put

TIMEOUT_S = 150.0
"""Longer than the router's own deadline, so that it is the router who ends a request."""


@dataclass(frozen=True, slots=True)
class Record:
    """One request.

    Attributes:
        began, ended: On the clock of ``time.monotonic``.
        by_router: Whether the router has said how it ended.
    """

    model: str
    streams: bool
    began: float
    ended: float
    outcome: Outcome
    detail: str
    status: int | None
    by_router: bool


class Load:
    """Requests for all models that are known, whole and streamed.

    All clients ask at the same moment, and then pause: so there are moments at which a loss hurts, at a rate that few
    cores bear.
    """

    def __init__(self, url: str, clients: int, rate: float, tokens: int) -> None:
        """``rate``: how many requests a second all clients begin together, as long as none has to wait."""
        self.records: list[Record] = []
        self.under_way = 0
        """Requests that have not ended."""
        self._url = url
        self._pause_s = clients / rate
        self._clients = clients
        self._tokens = tokens
        self._questions: dict[str, list[Question]] = {}

    async def learn(self, model: str) -> None:
        """Ask this model from now on; what it answers at this moment is what it is to answer."""
        async with self._http() as http:
            self._questions[model] = await known_questions(http, model, self._tokens)

    @contextmanager
    def falling_back(self, model: str, other: str) -> Iterator[None]:
        """Until the block ends, let ``other`` answer the questions to ``model`` that this cannot answer."""
        alone = self._questions[model]
        self._questions[model] = falling_back(alone, self._questions[other])
        try:
            yield
        finally:
            self._questions[model] = alone

    def forget(self, model: str) -> None:
        """Ask this model nothing more."""
        del self._questions[model]

    @contextmanager
    def running(self, group: asyncio.TaskGroup) -> Iterator[None]:
        """Ask until the block ends; the requests that run then are waited for with ``group``."""
        over = asyncio.Event()
        for number in range(self._clients):
            group.create_task(self._ask_until(over, random.Random(number)))  # noqa: S311  # not a secret
        try:
            yield
        finally:
            over.set()

    async def answered(self, count: int, models: Sequence[str]) -> None:
        """Wait until so many further requests to each of these models are answered."""
        began = time.monotonic()
        while any(self._answered_since(began, model) < count for model in models):  # noqa: ASYNC110  # as it is simpler
            await asyncio.sleep(0.1)

    async def busy(self) -> None:
        """Wait for a moment at which most clients wait for an answer, or are in the middle of one."""
        while self.under_way <= self._clients // 2:  # noqa: ASYNC110  # as it is simpler
            await asyncio.sleep(0.005)

    def _answered_since(self, began: float, model: str) -> int:
        return sum(one.began > began and one.outcome == "answered" and one.model == model for one in self.records)

    async def _ask_until(self, over: asyncio.Event, rng: random.Random) -> None:
        async with self._http() as http:
            while not over.is_set():
                await asyncio.sleep(self._pause_s - time.monotonic() % self._pause_s)
                await self._ask(http, rng)

    async def _ask(self, http: httpx.AsyncClient, rng: random.Random) -> None:
        model = rng.choice(sorted(self._questions))
        question = rng.choice(self._questions[model])
        began = time.monotonic()
        self.under_way += 1
        reply = await put(http, question)
        self.under_way -= 1
        detail = "" if reply.outcome == "answered" else reply.code or reply.text
        self.records.append(
            Record(
                model, question.streams, began, time.monotonic(), reply.outcome, detail, reply.status, reply.by_router
            )
        )

    def _http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._url, timeout=TIMEOUT_S, trust_env=False)
