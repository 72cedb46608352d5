"""Numbers that are not finite: the request that makes them ends with an error, and nobody else notices."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence as Rows
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.images import scene
from tests.vlm.engine.test_core import assert_empty, completions, core, drained, failed, submitted
from tests.vlm.engine.world import BLIP, FLORENCE, miniature
from vlm.engine.blocks import CachePlan
from vlm.engine.core import Core
from vlm.engine.kv_cache import KVCache
from vlm.engine.sequence import Beam, Sequence
from vlm.models.base import LoadedModel, Prompts, Sampled, Step
from vlm.models.processor import CacheSpec, Inputs
from vlm.types import Completion, Request, Sampling

BAD = 13
"""The seed of a request whose numbers overflow; nothing else depends on it, for it is greedy."""
LATE = 3
"""How many tokens the bad request has generated when its logits overflow."""
PROMPTS = {
    BLIP: ("a", "a photo of a small red square and"),
    FLORENCE: ("<CAPTION>", "<CAPTION_TO_PHRASE_GROUNDING> a red circle left of a blue square"),
}


class Overflowing:
    """Stands before a model whose numbers overflow for some sequences: what it embeds, or their logits."""

    def __init__(self, behind: Any) -> None:
        self._behind = behind
        self.inputs: list[Inputs] = []
        self.part = ""
        self.bad_numbers = False  # a model that chooses numbers beside tokens has logits of its own
        self.value = math.nan
        self.logits: Callable[[Tensor, Rows[Beam]], None] = lambda logits, rows: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)

    def embed(self, inputs: Rows[Inputs], features: Rows[Tensor], generated: Rows[Rows[int]]) -> Prompts:
        prompts: Prompts = self._behind.embed(inputs, features, generated)
        for row, one in enumerate(inputs):
            if any(one is bad for bad in self.inputs):
                part: Tensor = getattr(prompts, self.part)
                part[row] = self.value
        return prompts

    def decode(self, hidden: Tensor, rows: Rows[Beam], sample: Callable[[Tensor], Sampled]) -> Step:
        def sampled(logits: Tensor) -> Sampled:
            self.logits(logits, rows)
            return sample(logits)

        step: Step = self._behind.decode(hidden, rows, sampled)
        if step.logprobs is not None:
            for row, one in enumerate(rows):
                if self.bad_numbers and one.sequence.sampling.seed == BAD:
                    step.logprobs[row] = math.nan
        return step


def overflowing(name: str) -> tuple[LoadedModel, Overflowing]:
    model = Overflowing(miniature(name).model)
    stand_in: Any = model
    return replace(miniature(name), model=stand_in), model


def short(name: str, beams: int = 1) -> Request:
    return Request(scene(1), PROMPTS[name][0], sampling=Sampling(max_tokens=8, num_beams=beams))


def long(name: str) -> Request:
    return replace(short(name), prompt=PROMPTS[name][1])


def bad(name: str, beams: int = 1) -> Request:
    return replace(long(name), sampling=Sampling(max_tokens=8, seed=BAD, num_beams=beams))


def answers(used: Core, loaded: LoadedModel, *requests: Request) -> list[Completion]:
    sequences = submitted(used, loaded, requests)
    return completions(drained(used), sequences)


def same(found: Rows[Completion], expected: Rows[Completion]) -> None:
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]


def spoil(model: Overflowing, value: float, beam: int | None = None) -> None:
    """The logits of the bad request overflow at one step, in all its rows or in those of one beam."""

    def logits(found: Tensor, rows: Rows[Beam]) -> None:
        for row, one in enumerate(rows):
            theirs = one.sequence.sampling.seed == BAD and len(one.generated) == LATE
            if theirs and (beam is None or one is one.sequence.beams[beam]):
                found[row] = value

    model.logits = logits


@pytest.mark.parametrize("name", [BLIP, FLORENCE])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_overflow_end_their_request_alone(
    name: str, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    loaded, model = overflowing(name)
    expected = answers(core(miniature(name)), loaded, short(name), long(name))
    spoil(model, value)
    used = core(loaded)
    first, worst, last = sequences = submitted(used, loaded, [short(name), bad(name), long(name)])
    events = drained(used)
    [error] = [event.error for event in events if event.error is not None]
    assert "not finite in float32" in error.message
    assert failed(events) == {worst}
    assert len(worst.generated) == LATE, "an overflow does not yield a token"
    same(completions(events, [first, last]), expected)
    assert [one.slot for one in sequences] == [None] * 3
    assert_empty(used)


def test_a_log_probability_that_is_no_number_ends_its_request_alone(caplog: pytest.LogCaptureFixture) -> None:
    loaded, model = overflowing(BLIP)
    model.bad_numbers = True
    used = core(loaded)
    asked = [replace(one, sampling=replace(one.sampling, logprobs=True)) for one in (short(BLIP), bad(BLIP))]
    good, worst = submitted(used, loaded, asked)
    events = drained(used)
    assert failed(events) == {worst}
    [completion] = completions(events, [good])
    assert all(math.isfinite(one) for one in completion.logprobs)
    assert_empty(used)


@pytest.mark.parametrize("beam", [0, 1, 2])
def test_one_beam_that_overflows_ends_its_search_alone(beam: int, caplog: pytest.LogCaptureFixture) -> None:
    loaded, model = overflowing(FLORENCE)
    neighbours = [short(FLORENCE, beams=3), short(FLORENCE)]
    expected = _searched(core(miniature(FLORENCE)), loaded, neighbours)
    spoil(model, math.nan, beam)
    used = core(loaded)
    first, worst, last = _search(used, loaded, [neighbours[0], bad(FLORENCE, beams=3), neighbours[1]])
    events = drained(used)
    assert failed(events) == {worst}
    same(completions(events, [first, last]), expected)
    assert_empty(used)


def _search(used: Core, loaded: LoadedModel, requests: Rows[Request]) -> list[Sequence]:
    sequences = submitted(used, loaded, requests)
    for one, request in zip(sequences, requests, strict=True):
        one.sampling = replace(one.sampling, num_beams=request.sampling.num_beams, length_penalty=1.0)
    return sequences


def _searched(used: Core, loaded: LoadedModel, requests: Rows[Request]) -> list[Completion]:
    sequences = _search(used, loaded, requests)
    return completions(drained(used), sequences)


@pytest.mark.parametrize(("name", "part"), [(BLIP, "embeddings"), (BLIP, "encoded"), (FLORENCE, "encoded")])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_next_owner_of_its_blocks_and_slot_is_clean(
    name: str, part: str, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    """The next owner is shorter, so that it has what is left over behind its end."""
    loaded, model = overflowing(name)
    [expected] = answers(core(miniature(name)), loaded, short(name))
    [expected_long] = answers(core(miniature(name)), loaded, long(name))
    used = core(loaded, rows=2, blocks=4)
    [worst] = submitted(used, loaded, [bad(name)])
    model.inputs, model.part, model.value = [worst.inputs], part, value
    assert failed(used.step()) == {worst}
    assert_empty(used)
    [next_one] = submitted(used, loaded, [short(name)])
    events = used.step()
    [neighbour] = submitted(used, loaded, [long(name)])  # its long encoder output shows all of the other's slot
    events += drained(used)
    same(completions(events, [next_one, neighbour]), [expected, expected_long])
    assert_empty(used)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_keys_and_values_are_finite_and_so_are_products_of_them(dtype: torch.dtype, value: float) -> None:
    spec = CacheSpec(layers=1, kv_heads=2, head_dim=64, max_positions=16, cross_positions=3)
    cache = KVCache(spec, CachePlan(slots=2, blocks=3, bytes=0), dtype, torch.device("cpu"))
    cache.write(0, torch.arange(16, 21), torch.full((5, 4, 64), value, dtype=dtype))
    cache.write_cross(0, 1, torch.full((1, 3, 4, 64), value, dtype=dtype))
    (keys,), (values,) = cache.read_cross(2, 3)
    for found in (cache.read(0, torch.tensor([1]), 1), keys, values):
        assert found.isfinite().all()
        assert bool(found.any()) is not math.isnan(value), "an infinity is clamped to a large number, and NaN to 0"
        assert (found.float() ** 2).sum().isfinite(), "or a score would be infinite, though masked"


def test_sound_keys_and_values_are_kept_to_the_bit() -> None:
    spec = CacheSpec(layers=1, kv_heads=1, head_dim=4, max_positions=16)
    cache = KVCache(spec, CachePlan(slots=1, blocks=2, bytes=0), torch.float32, torch.device("cpu"))
    written = torch.tensor([[[-1e9, 0.0, 1e-30, 1e12], [1.0, -2.0, 3.0, -4.0]]])
    cache.write(0, torch.tensor([16]), written)
    assert torch.equal(cache.read(0, torch.tensor([1]), 1)[0, :1], written)


def test_encoder_output_of_a_shorter_neighbour_is_not_the_bad_one_s(caplog: pytest.LogCaptureFixture) -> None:
    """In one prefill, where the bad request has the longest encoder output."""
    loaded, model = overflowing(FLORENCE)
    expected = answers(core(miniature(FLORENCE)), loaded, short(FLORENCE))
    used = core(loaded)
    [good, worst] = submitted(used, loaded, [short(FLORENCE), bad(FLORENCE)])
    model.inputs, model.part, model.value = [worst.inputs], "encoded", math.nan
    events = drained(used)
    assert failed(events) == {worst}
    same(completions(events, [good]), expected)
