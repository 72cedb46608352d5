"""How long an answer may become: the room that the prompt, the task and a beam search leave in the context."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from vlm.engine.blocks import longest_with_beams
from vlm.engine.prepare import Preparer
from vlm.engine.processor_cache import ProcessorCache
from vlm.errors import InvalidRequest
from vlm.models.processor import CacheSpec, Inputs, Processor
from vlm.types import Request, Sampling

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
    return preparer.prepare(Request(None, sampling=Sampling(**sampling))).sampling.max_tokens


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
