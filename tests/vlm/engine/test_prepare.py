"""How long an answer may become, which requests an event loop prepares itself, and how pixels join what is prepared."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from tests.images import plain
from tests.vlm.engine.world import BLIP, faulty_processor, miniature
from vlm.engine.blocks import longest_with_beams
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.engine.prepare import QUICK_BYTES, QUICK_CHARACTERS, Preparer, is_quick
from vlm.engine.processor_cache import ProcessorCache
from vlm.errors import EngineClosed, EngineFailure, InvalidRequest
from vlm.models.processor import CacheSpec, Inputs, Processor
from vlm.types import Request, Sampling, Task

CONTEXT, BLOCKS = 40, 6
DEFAULTS = Sampling(
    max_tokens=1000, temperature=0, top_p=1, repetition_penalty=1, no_repeat_ngram_size=0, forced_tokens=(),
    num_beams=1, length_penalty=1, early_stopping=False,
)  # fmt: skip
INPUTS = Inputs(None, (1,), (), "caption", "", "default", None, 0, 1)


@dataclass
class Facts:
    cache: CacheSpec
    defaults: Sampling
    vocabulary: int = 100
    beam_search: bool = True


class Prompts:
    """A processor whose prompts have a given length."""

    def __init__(self, length: int, limit: int | None) -> None:
        self.length, self.limit = length, limit

    def prepare(self, request: Request, preprocess: Any = None) -> Inputs:
        return replace(INPUTS, prompt_ids=(1,) * self.length, limit=self.limit)

    def decode(self, token_ids: Any, *, special: bool = False) -> str:
        return ""


def room(prompt: int, limit: int | None = None, **sampling: Any) -> int | None:
    facts = Facts(CacheSpec(layers=1, kv_heads=1, head_dim=1, max_positions=CONTEXT), DEFAULTS)
    preparer = Preparer(facts, cast(Processor, Prompts(prompt, limit)), BLOCKS, ProcessorCache(0))
    return preparer.draft(Request(None, sampling=Sampling(**sampling))).sequence.sampling.max_tokens


def test_the_last_token_needs_no_position() -> None:
    """It is chosen and never read: a prompt of 10 and 31 tokens make 41, of which 40 are positions."""
    assert room(10) == CONTEXT - 10 + 1


def test_a_prompt_may_fill_the_context_and_no_more() -> None:
    assert room(CONTEXT) == 1
    with pytest.raises(InvalidRequest, match=r"length is 40 tokens\. .* resulted in 41 tokens") as refused:
        room(CONTEXT + 1)
    assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize(("max_tokens", "limit", "expected"), [(5, None, 5), (5, 3, 3), (3, 5, 3), (99, None, 31)])
def test_the_shortest_bound_holds(max_tokens: int, limit: int | None, expected: int) -> None:
    assert room(10, limit, max_tokens=max_tokens) == expected


def test_a_search_is_bounded_by_the_blocks_that_its_beams_may_take() -> None:
    longest = longest_with_beams(BLOCKS, 10, 4)
    assert longest < CONTEXT
    assert room(10, num_beams=4) == longest - 10 + 1


# --- in the event loop or in a thread --------------------------------------------------------------

LONG = "a" * QUICK_CHARACTERS


@pytest.mark.parametrize(
    ("request_", "quick"),
    [
        (Request(None), True),
        (Request(bytes(QUICK_BYTES), LONG), True),
        (Request(bytes(QUICK_BYTES + 1)), False),
        (Request(None, LONG + "a"), False),
        (Request(None, LONG, task=Task("query", text="?")), False),
        (Request(None, LONG, task=Task("detect", labels=("x",))), False),
        (Request(None, LONG, sampling=Sampling(stop=(".",))), False),
        (Request(None, LONG, sampling=Sampling(forced_tokens=(1,))), False),
    ],
)
def test_what_an_event_loop_prepares_itself(request_: Request, quick: bool) -> None:
    assert is_quick(request_) == quick


def test_several_generations_are_prepared_in_threads() -> None:
    """One request can ask for 64, each of which may take two milliseconds."""
    threads = set[str]()
    loaded = faulty_processor(miniature(BLIP), "prepare", lambda *_: threads.add(threading.current_thread().name))
    with Engine(loaded, EngineConfig(cache_bytes=2**26)) as engine:
        asyncio.run(engine.complete(Request(None, images=(plain(30, 20), plain(20, 30)))))
        asyncio.run(engine.complete(Request(plain(30, 20), n=2)))
    assert threads
    assert all(name.startswith("prepare") for name in threads)


def test_an_image_of_many_parts_is_prepared_in_a_thread() -> None:
    threads = set[str]()
    loaded = faulty_processor(miniature(BLIP), "prepare", lambda *_: threads.add(threading.current_thread().name))
    photo = plain(30, 20, "JPEG")
    with Engine(loaded, EngineConfig(cache_bytes=2**26)) as engine:
        plainly = asyncio.run(engine.complete(Request(photo)))
        assert threads == {"MainThread"}
        many = asyncio.run(engine.complete(Request(photo[:2] + b"\xff\xfe\0\2" * 300 + photo[2:])))
    assert [name for name in threads if name.startswith("prepare")]
    assert many.text == plainly.text


def test_who_comes_when_the_threads_have_been_stopped_may_ask_another_replica() -> None:
    engine = Engine(miniature(BLIP), EngineConfig(cache_bytes=2**26))
    engine._intake.stop()
    with pytest.raises(EngineClosed):
        asyncio.run(engine._intake.prepared(Request(None, LONG + "a")))


def test_pixels_of_another_size_than_the_scan_tells_are_not_used() -> None:
    loaded = miniature(BLIP)
    preparer = Preparer(loaded.model, loaded.processor, BLOCKS, ProcessorCache(0))
    image = plain(30, 20)
    made = loaded.processor.preprocess(image)
    assert preparer.draft(Request(image)).finished(made).inputs.pixels is made.pixels
    with pytest.raises(EngineFailure):
        preparer.draft(Request(image)).finished(replace(made, size=(20, 30)))
