"""A router whose spans are kept, over scripted replicas that make theirs as real ones do."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import httpx
from starlette.applications import Starlette

from deployments.replica_traces import ReplicaTraces
from router.app import create_app, resilient
from router.config import RouterConfig
from router.tracing.choice import Choice
from router.tracing.tracing import Tracing
from tests.router.resilience.world import MODEL, Scripted
from tests.router.world import CHAT, Step, body
from tests.traces.kept import Kept
from vlm.types import Chunk, Request

TARGET = "http://collector.invalid:4318"


class Replicas(Scripted):
    """Scripted, and each attempt is watched as a replica watches it."""

    def __init__(self, *scripts: Sequence[Step], kept: Kept | None = None) -> None:
        super().__init__(*scripts)
        self.targets: list[str] = []
        self._traces = ReplicaTraces(dict, self._make(kept or Kept()))

    def _make(self, kept: Kept) -> Any:
        def make(target: str) -> Kept:
            self.targets.append(target)
            return kept

        return make

    async def generate(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        async with aclosing(self._traces.chunks(request, super().generate(model, request))) as chunks:
            async for chunk in chunks:
                yield chunk

    def serves(self, model: str) -> bool:
        return model == MODEL


def traced_app(
    backend: Scripted, kept: Kept, config: RouterConfig = RouterConfig(), choice: Choice = Choice(1.0, False)
) -> Starlette:
    tracing = Tracing(kept, TARGET, choice)
    return create_app(resilient(backend, config, tracing), config, tracing=tracing)


async def ask(app: Starlette, request: object = None, *, path: str = CHAT, **headers: str) -> httpx.Response:
    """Send one request, which is a good one unless it is given."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        return await http.post(path, json=body() if request is None else request, headers=headers)
