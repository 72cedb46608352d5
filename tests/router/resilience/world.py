"""Backends that fail as they are told, and what is asked of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from itertools import pairwise

from router.admission.capacity import Capacity
from router.backends.base import Backend, ModelStatus, unknown
from tests.router.world import Step
from vlm.errors import EngineClosed, EngineLost, ModelNotReady, Overloaded, ReplicaLost, VlmError
from vlm.types import Chunk, Request

MODEL = "blip-large"
REQUEST = Request(b"image")
LOST = EngineLost("The model failed while it worked on this request.")
GONE = ReplicaLost("The model lost the process that was to answer.")
CLOSED = EngineClosed("The engine is stopping.")
FULL = Overloaded("No room.")
NOT_READY = ModelNotReady("The model cannot answer yet.")
RETRYABLE = (LOST, GONE, CLOSED, FULL)


class Scripted:
    """Plays another script for each attempt, and the last one for all that follow it."""

    def __init__(self, *scripts: Sequence[Step], models: Sequence[str] = (MODEL,)) -> None:
        self._scripts = scripts
        self._models = models
        self.times: list[float] = []
        self.asked: list[Request] = []
        self.running = 0
        self.most = 0

    async def generate(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        if model not in self._models:
            raise unknown(model)
        self.times.append(asyncio.get_running_loop().time())
        self.asked.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for step in self._scripts[min(len(self.asked), len(self._scripts)) - 1]:
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            self.running -= 1

    async def models(self) -> Sequence[ModelStatus]:
        return [ModelStatus(model, ready=True, detail="running") for model in self._models]

    def capacity(self, model: str) -> Capacity:
        return Capacity(1)

    def serves(self, model: str) -> bool:
        return True

    def names(self) -> Collection[str]:
        return ["blip-large"]

    async def asleep(self, model: str) -> bool:
        return False


async def read(backend: Backend, request: Request = REQUEST) -> tuple[list[Chunk], VlmError | None]:
    """The chunks of an answer, and the error that it ended with."""
    found: list[Chunk] = []
    try:
        async with aclosing(backend.generate(MODEL, request)) as chunks:
            async for chunk in chunks:
                found += [chunk]
    except VlmError as error:
        return found, error
    return found, None


def regrouped(chunks: Sequence[Chunk], cuts: Sequence[int]) -> list[Chunk]:
    """The same chunks, joined between the ``cuts``."""
    ends = sorted({0, *(cut for cut in cuts if cut < len(chunks)), len(chunks)})
    return [Chunk.joined(chunks[start:end]) for start, end in pairwise(ends)]
