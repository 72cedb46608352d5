"""A model that sleeps: it answers after a stated time, takes so many requests at once, and needs no CPU for it.

With it, every replica adds as much as the one before, on a machine of any size, so that a benchmark shows how replicas
follow the load and not how the machine does. It tells which replica has answered.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from deployments.scaling_policy import report
from vlm.engine.config import EngineStats
from vlm.errors import Overloaded
from vlm.types import Chunk, Completion, Grounding, ModelInfo, Request, Timings, Usage

REPLICA = "replica "
"""What an answer begins with; the id of the replica's process follows."""
PIECES = 4
"""Chunks of an answer that streams."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """How a replica behaves.

    Attributes:
        slots: Number of requests that it works on at once.
        waiting: Number of requests that wait beyond those; more are refused.
        service_s: Seconds that it takes for a request.
        start_s: Seconds that it takes to start, as a model is loaded.
    """

    slots: int = 4
    waiting: int = 64
    service_s: float = 0.5
    start_s: float = 2.0

    @property
    def rate(self) -> float:
        """Requests a second that one replica answers."""
        return self.slots / self.service_s


class SleepingReplica:
    """Has the methods of :class:`deployments.replica.Replica`."""

    def __init__(self, settings: Sleep) -> None:
        time.sleep(settings.start_s)
        self._settings = settings
        self._turns = asyncio.Semaphore(settings.slots)
        self._held = 0
        self._asked = 0

    async def answer(self, request: Request) -> Chunk:
        """The whole answer."""
        return [chunk async for chunk in self.generate(request)][-1]

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """A piece after each part of the time; an answer that does not stream comes at the end."""
        self._asked += 1
        if self._held >= self._settings.slots + self._settings.waiting:
            yield Chunk(error=Overloaded("Full."))
            return
        text = f"{REPLICA}{os.getpid()}"
        async with self._turn():
            for number in range(PIECES):
                await asyncio.sleep(self._settings.service_s / PIECES)
                if request.stream and number + 1 < PIECES:
                    yield Chunk(text=text if number == 0 else "", token_ids=(number,))
        said = "" if request.stream else text
        yield Chunk(text=said, token_ids=(PIECES - 1,), completion=_completion(text))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        self._held += 1
        try:
            async with self._turns:
                yield
        finally:
            self._held -= 1

    async def describe(self) -> ModelInfo:
        """Nothing is loaded."""
        return ModelInfo("sleeping", "sleeping", None, 0, "none", "none")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What an engine would say of itself."""
        slots, held = self._settings.slots, self._held
        queue_s = max(0, held + 1 - slots) * self._settings.service_s / slots
        running = min(held, slots)
        total = slots + self._settings.waiting
        stats = EngineStats(running, held - running, slots, 0, 0, 0, 0, 0, held, held, total, queue_s)
        return report(stats, self._asked)


def _completion(text: str) -> Completion:
    return Completion(
        text=text,
        token_ids=tuple(range(PIECES)),
        logprobs=(),
        grounding=Grounding("caption", "", text, (64, 48), raw=text),
        finish_reason="stop",
        usage=Usage(image_tokens=1, text_tokens=1, completion_tokens=PIECES),
        timings=Timings(prepare_ms=1.0, queue_ms=1.0, first_token_ms=1.0, total_ms=1.0),
        resolution="default",
    )


def build(args: Mapping[str, Any]) -> Any:
    """What a Serve config names; ``args`` are the fields of :class:`Sleep`."""
    from ray import serve

    settings = Sleep(**args)
    deployment = serve.deployment(name="Replica", max_ongoing_requests=settings.slots + settings.waiting + 32)
    return deployment(SleepingReplica).bind(settings)
