"""Several models that each play a part of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from router.backends.base import ModelStatus
from router.config import RouterConfig
from tests.router.world import FakeBackend, Step, body, script, words
from vlm.types import Chunk, Request

Json = dict[str, Any]

NAMES = ("blip-large", "florence-2-base", "kosmos-2", "moondream-2")
PRICES = {"blip-large": "0.05", "florence-2-base": "0.1", "kosmos-2": "0.6"}
"""US dollars for 1,000 images; that of Moondream 2 is not known."""
CONFIG = RouterConfig(prices=PRICES)


class Models(FakeBackend):
    """Each model plays the steps under its name, others those of :class:`FakeBackend`."""

    def __init__(
        self,
        plays: Mapping[str, Sequence[Step]] | None = None,
        *,
        names: Sequence[str] = NAMES,
        pauses_s: Mapping[str, float] | None = None,
        not_ready: Sequence[str] = (),
    ) -> None:
        statuses = [ModelStatus(name, ready=name not in not_ready, detail="running") for name in names]
        super().__init__(script(words()), statuses=statuses)
        self.plays = plays or {}
        self.pauses_s = pauses_s or {}

    async def generate(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        self.asked.append((model, request))
        self.running += 1
        try:
            for step in self.plays.get(model, self.steps):
                await asyncio.sleep(self.pauses_s.get(model, 0.0))
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            self.running -= 1
            self.closed += 1

    @property
    def names_asked(self) -> list[str]:
        return [model for model, _ in self.asked]


def asking(model: str, text: str | None = None, **fields: object) -> Json:
    """A request for ``model``."""
    return {**body(text), "model": model, **fields}


def routing(answer: Any) -> Json:
    """What an answer says about who was asked."""
    told: Json = answer.json()["x_gigarouter"]["routing"]
    return told


def said(answer: Any) -> str:
    """The content of an answer's first choice."""
    content: str = answer.json()["choices"][0]["message"]["content"]
    return content
