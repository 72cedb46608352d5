"""What the engine's tests share: the miniatures, a mixed crowd of requests, and models that fail on purpose."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from tests.images import scene
from tests.oracle import MINIATURES, without_scores
from vlm.engine.blocks import CachePlan
from vlm.engine.engine import Engine
from vlm.loading import load
from vlm.models.base import LoadedModel
from vlm.types import Completion, Request, Sampling

BLIP, FLORENCE, KOSMOS = "blip-large", "florence-2-base", "kosmos-2"
NAMES = (BLIP, FLORENCE)
PROMPTS = {
    BLIP: ("", "a picture of", "a", "a photo of a small red square and"),
    FLORENCE: (
        "<CAPTION>", "<DETAILED_CAPTION>", "<OD>", "<OCR>", "<OCR_WITH_REGION>",
        "<CAPTION_TO_PHRASE_GROUNDING> a red circle left of a blue square",
    ),
    KOSMOS: (
        "<grounding>An image of", "An image of", "<grounding><phrase> a red circle</phrase>",
        "Question: How many shapes are there? Answer:",
    ),
}  # fmt: skip


@cache
def miniature(name: str) -> LoadedModel:
    """A bundled miniature, loaded once a test run."""
    return load(MINIATURES / name, dtype="float32", device="cpu")


def crowd(name: str, count: int, seed: int = 0) -> list[Request]:
    """Requests of mixed tasks, prompts, lengths and samplings; every random one has its seed."""
    rng = random.Random(seed)
    return [_request(name, rng) for _ in range(count)]


def _request(name: str, rng: random.Random) -> Request:
    return Request(scene(rng.randrange(20)), rng.choice(PROMPTS[name]), sampling=_sampling(rng))


def _sampling(rng: random.Random) -> Sampling:
    temperature = rng.choice([0.0, 0.0, 1.0, 1.7])
    return Sampling(
        max_tokens=rng.choice([1, 2, 9, 30, 45]),
        temperature=temperature,
        num_beams=1 if temperature else rng.choice([1, 1, 2, 3]),
        top_p=rng.choice([0.6, 1.0]),
        seed=rng.randrange(1000),
        repetition_penalty=rng.choice([None, None, 1.4]),
        no_repeat_ngram_size=rng.choice([None, None, 2]),
        stop=rng.choice([(), (), ("square", "of a")]),
        logprobs=rng.random() < 0.3,
    )


def comparable(completion: Completion) -> tuple[object, ...]:
    """What must not depend on the batch: all but times, the image cache, and scores, which differ by rounding."""
    usage = replace(completion.usage, cached_tokens=0)
    return completion.token_ids, completion.text, without_scores(completion.grounding), completion.finish_reason, usage


def least_bytes(loaded: LoadedModel, rows: int, blocks: int) -> int:
    """A budget that buys about so many rows that share so few blocks."""
    spec = loaded.model.cache
    return spec.bytes_per_position(loaded.model.dtype.itemsize) * (rows * spec.cross_positions + (blocks + 1) * 16)


def plan(loaded: LoadedModel, rows: int, blocks: int) -> CachePlan:
    return CachePlan(rows, blocks + 1, least_bytes(loaded, rows, blocks))


class Faulty:
    """Stands before a model or a processor; ``before`` hears of each call of one method, and may raise."""

    def __init__(self, behind: object, method: str, before: Callable[..., None]) -> None:
        self._behind, self._method, self._before = behind, method, before

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._behind, name)
        if name != self._method:
            return found

        def observed(*args: Any, **more: Any) -> Any:
            self._before(*args, **more)
            return found(*args, **more)

        return observed


def faulty_model(loaded: LoadedModel, method: str, before: Callable[..., None]) -> LoadedModel:
    stand_in: Any = Faulty(loaded.model, method, before)
    return replace(loaded, model=stand_in)


def faulty_processor(loaded: LoadedModel, method: str, before: Callable[..., None]) -> LoadedModel:
    stand_in: Any = Faulty(loaded.processor, method, before)
    return replace(loaded, processor=stand_in)


async def eventually(holds: Callable[[], object], patience_s: float = 10) -> None:
    """Wait until a condition holds; an error if it does not within ``patience_s`` seconds."""
    async with asyncio.timeout(patience_s):
        while not holds():
            await asyncio.sleep(0.001)


class Gate:
    """Holds the call with this number, and those after it, until it is opened; nobody waits for longer than 10 s.

    What a test does meanwhile is done before that call returns, however slow or fast the machine is.
    """

    def __init__(self, number: int) -> None:
        self.number, self.calls = number, 0
        self._open = threading.Event()

    def __call__(self, *args: object, **more: object) -> None:
        self.calls += 1
        if self.calls >= self.number:
            assert self._open.wait(10), "nobody has opened the gate"

    def open(self) -> None:
        """Let the calls go on."""
        self._open.set()


def assert_empty(engine: Engine) -> None:
    """Nothing is held; the device thread carries out the last commands within a moment."""
    patience = time.monotonic() + 10
    while time.monotonic() < patience:
        stats = engine.stats()
        if not (stats.accepted or stats.running or stats.waiting or stats.used_blocks or engine._streams):
            return
        time.sleep(0.01)
    raise AssertionError(f"{stats}, {len(engine._streams)} streams")
