"""The engine's heart, step by step and without threads, on the real miniatures."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence as Rows
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

from logs.lines import HOLDS_REQUESTS
from tests.images import scene
from tests.oracle import MINIATURES
from tests.vlm.engine.world import (
    BLIP,
    FLORENCE,
    NAMES,
    crowd,
    faulty_model,
    faulty_processor,
    miniature,
    plan,
)
from vlm.engine.core import Core, Event
from vlm.engine.output import OutputText
from vlm.engine.runner import ModelRunner
from vlm.engine.sequence import Sequence
from vlm.loading import families, load, synthesize
from vlm.models.base import LoadedModel
from vlm.types import Completion, Request, Sampling


def core(loaded: LoadedModel, rows: int = 16, blocks: int = 200, max_prefill: int = 8) -> Core:
    return Core(loaded, plan(loaded, rows, blocks), max_prefill)


def sequence(loaded: LoadedModel, request: Request) -> Sequence:
    inputs = loaded.processor.prepare(request)
    sampling = request.sampling.over(replace(loaded.model.defaults, num_beams=1))
    output = OutputText(loaded.processor.decode, inputs, sampling.stop)
    return Sequence(inputs, sampling, output, request_id=request.request_id)


def submitted(to: Core, loaded: LoadedModel, requests: Rows[Request]) -> list[Sequence]:
    sequences = [sequence(loaded, request) for request in requests]
    for one in sequences:
        to.submit(one)
    return sequences


def drained(from_core: Core) -> list[Event]:
    events: list[Event] = []
    for _ in range(2000):  # a preemption without end would never be done
        if not from_core.busy:
            return events
        events += from_core.step()
    raise AssertionError("2000 steps, and not done")


def completions(events: Rows[Event], sequences: Rows[Sequence]) -> list[Completion]:
    """One a sequence; each ended exactly once, after which nothing came."""
    found = []
    for one in sequences:
        mine = [event for event in events if event.sequence is one]
        assert all(event.chunk is not None and event.chunk.completion is None for event in mine[:-1])
        assert mine[-1].chunk is not None
        assert mine[-1].chunk.completion is not None
        found.append(mine[-1].chunk.completion)
    return found


def failed(events: Rows[Event]) -> set[Sequence]:
    return {event.sequence for event in events if event.error is not None}


def assert_empty(used: Core) -> None:
    assert not used.busy
    assert used.scheduler.pool.used == 0


@pytest.mark.parametrize("name", NAMES)
def test_chunks_joined_are_the_completion(name: str) -> None:
    one = core(miniature(name))
    sequences = submitted(one, miniature(name), crowd(name, 12))
    events = drained(one)
    for owner, completion in zip(sequences, completions(events, sequences), strict=True):
        chunks = [event.chunk for event in events if event.sequence is owner and event.chunk is not None]
        assert "".join(chunk.text for chunk in chunks) == completion.text
        assert sum((chunk.token_ids for chunk in chunks), ()) == completion.token_ids
        assert sum((chunk.logprobs for chunk in chunks), ()) == completion.logprobs
        assert len(completion.logprobs) == (len(completion.token_ids) if owner.sampling.logprobs else 0)
    assert_empty(one)


LONG = Request(scene(3), sampling=Sampling(max_tokens=45, forced_tokens=tuple(range(9, 49)), num_beams=1))
"""Holds three blocks in the end, whatever the miniature would say by itself; its last words are its own."""


@pytest.mark.parametrize("name", NAMES)
def test_preemption_does_not_change_answers(name: str) -> None:
    loaded, requests = miniature(name), [*[LONG] * 5, *crowd(name, 11, seed=3)]
    roomy, tight = core(loaded), core(loaded, rows=16, blocks=12)
    here, there = submitted(roomy, loaded, requests), submitted(tight, loaded, requests)
    ample, scarce = completions(drained(roomy), here), completions(drained(tight), there)
    assert [one.token_ids for one in scarce] == [one.token_ids for one in ample]
    assert [one.text for one in scarce] == [one.text for one in ample]
    assert sum(one.preemptions for one in there) > 0
    assert not any(one.preemptions for one in here)


def test_a_sequence_can_be_dropped_at_any_moment() -> None:
    loaded, rng = miniature(BLIP), random.Random(5)
    one = core(loaded, rows=4, blocks=12)
    requests = crowd(BLIP, 24, seed=5)
    sequences = submitted(one, loaded, requests)
    kept = set(sequences)
    events = []
    for _ in range(2000):
        if not one.busy:
            break
        events += one.step()
        alive = [s for s in sequences if s in kept and s.finish_reason is None]
        if alive and rng.random() < 0.4:
            dropped = rng.choice(alive)
            one.abort(dropped)
            kept.remove(dropped)
            assert not dropped.beams
    stayed = [index for index, s in enumerate(sequences) if s in kept]
    alone = core(loaded)
    again = submitted(alone, loaded, [requests[index] for index in stayed])
    mine = completions(events, [sequences[index] for index in stayed])
    assert [c.token_ids for c in mine] == [c.token_ids for c in completions(drained(alone), again)]
    assert 0 < len(stayed) < len(sequences)
    assert_empty(one)


class Armed:
    """Raises once, when told to."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.calls_left: int | None = None

    def __call__(self, *args: object, **more: object) -> None:
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left == 0:
                self.calls_left = None
                raise self.error


REQUEST = Request(scene(1), sampling=Sampling(max_tokens=12))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("calls_left", "failing"), [(1, "decode"), (2, "prefill")])
def test_a_forward_that_raises_fails_exactly_its_batch(
    name: str, calls_left: int, failing: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A step with both kinds calls forward for those that decode, then for those that start."""
    fault = Armed(RuntimeError("a kernel is unhappy"))
    loaded = faulty_model(miniature(name), "forward", fault)
    one = core(loaded)
    running = submitted(one, loaded, [replace(REQUEST, request_id=f"decode-{number}") for number in range(3)])
    one.step()
    joining = submitted(one, loaded, [replace(REQUEST, request_id="prefill")] * 2)
    fault.calls_left = calls_left
    events = one.step()
    assert failed(events) == set(running if failing == "decode" else joining)
    assert "a kernel is unhappy" in caplog.text
    [message] = [record.getMessage() for record in caplog.records if record.exc_info]
    named = {"decode": "3 sequences failed; requests: decode-0, decode-1, decode-2", "prefill": "requests: prefill"}
    assert message.endswith(named[failing])
    survivors = joining if failing == "decode" else running
    texts = {completion.text for completion in completions([*events, *drained(one)], survivors)}
    again = submitted(one, loaded, [REQUEST])
    assert {completion.text for completion in completions(drained(one), again)} == texts
    assert not one.broken
    assert_empty(one)


def test_moves_that_fail_fail_the_batch_and_not_the_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A GPU reports an error at whichever call comes next, and that may be the one that moves rows."""
    loaded = miniature(BLIP)
    one = core(loaded)
    first, *others = submitted(one, loaded, [REQUEST] * 3)
    one.step()
    one.abort(first)
    with monkeypatch.context() as patched:
        patched.setattr(ModelRunner, "_follow", Armed(torch.AcceleratorError("device-side assert")))
        one._runner._follow.calls_left = 1  # type: ignore[attr-defined]  # the fault that stands in its place
        assert failed(one.step()) == set(others)
    assert one.broken
    assert_empty(one)


@pytest.mark.parametrize("method", ["parse", "decode"])
def test_an_answer_that_cannot_be_read_fails_alone(method: str, caplog: pytest.LogCaptureFixture) -> None:
    fault = Armed(ValueError("no such token"))
    loaded = faulty_processor(miniature(FLORENCE), method, fault)
    one = core(loaded)
    sequences = submitted(one, loaded, [REQUEST] * 4)
    one.step()
    fault.calls_left = 1
    events = drained(one)
    assert len(failed(events)) == 1
    assert len(completions(events, [s for s in sequences if s not in failed(events)])) == 3
    [logged] = [record for record in caplog.records if record.exc_info]
    assert logged.name.startswith(HOLDS_REQUESTS), "the text of the exception may quote the answer"
    assert_empty(one)


@pytest.mark.parametrize(("error", "broken"), [(torch.AcceleratorError("gone"), True), (MemoryError(), False)])
def test_only_a_broken_device_is_for_ever(error: Exception, broken: bool, caplog: pytest.LogCaptureFixture) -> None:
    fault = Armed(error)
    loaded = faulty_model(miniature(BLIP), "embed", fault)
    one = core(loaded)
    sequences = submitted(one, loaded, [REQUEST] * 2)
    fault.calls_left = 1
    assert failed(one.step()) == set(sequences)
    assert one.broken is broken


@pytest.mark.parametrize(
    ("dtype", "advice"), [("float32", "python -m vlm.verify"), ("bfloat16", "wider dtype (float32)")]
)
def test_weights_that_are_nan_fail_with_advice_that_fits_the_dtype(dtype: str, advice: str) -> None:
    loaded = load(MINIATURES / BLIP, dtype=dtype, device="cpu")
    for parameter in cast(torch.nn.Module, loaded.model).parameters():
        parameter.data.fill_(math.nan)
    one = core(loaded)
    submitted(one, loaded, [REQUEST])
    [event] = drained(one)
    assert event.error is not None
    assert advice in event.error.message
    assert f"not finite in {dtype}" in event.error.message
    assert_empty(one)


def test_fail_all_ends_running_and_waiting_sequences() -> None:
    loaded = miniature(BLIP)
    one = core(loaded, rows=2)
    sequences = submitted(one, loaded, [REQUEST] * 5)
    one.step()
    assert failed(one.fail_all("over")) == set(sequences)
    assert_empty(one)
    assert one.fail_all("over") == []


def ended(name: str, *samplings: Sampling, prompt: str = "") -> list[Completion]:
    return answered(miniature(name), *samplings, prompt=prompt)


def answered(loaded: LoadedModel, *samplings: Sampling, prompt: str = "") -> list[Completion]:
    one = core(loaded)
    sequences = submitted(one, loaded, [Request(scene(1), prompt, sampling=how) for how in samplings])
    return completions(drained(one), sequences)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("max_tokens", [1, 2, 3])
def test_max_tokens_ends_with_length(name: str, max_tokens: int) -> None:
    [completion] = ended(name, Sampling(max_tokens=max_tokens))
    assert len(completion.token_ids) == completion.usage.completion_tokens == max_tokens
    assert completion.finish_reason == "length"


@pytest.mark.parametrize("name", NAMES)
def test_a_stop_string_ends_the_answer_early_and_is_not_part_of_it(name: str) -> None:
    [whole] = ended(name, Sampling())
    stop = whole.text.split()[2]
    [cut] = ended(name, Sampling(stop=("never generated", stop)))
    assert whole.finish_reason == cut.finish_reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)].strip()
    assert len(cut.token_ids) < len(whole.token_ids)


def test_geometry_alone_comes_at_the_end_and_ignores_stop_strings() -> None:
    plain, stopped = ended(FLORENCE, Sampling(), Sampling(stop=("circle", "square", "l")), prompt="<OD>")
    assert stopped.token_ids == plain.token_ids
    assert (plain.text, plain.has_text) == ("", False)
    assert plain.grounding.detections


def test_a_forced_end_of_sequence_token_does_not_end_the_answer() -> None:
    [end] = miniature(BLIP).model.eos_token_ids
    [completion] = ended(BLIP, Sampling(max_tokens=6, forced_tokens=(7, end, 8, 9)))
    assert completion.token_ids[:4] == (7, end, 8, 9)
    assert len(completion.token_ids) > 4


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_and_an_answer_fill_the_last_position(name: str) -> None:
    """The last token is chosen but never read, so it needs no position."""
    cache = miniature(name).model.cache
    how = Sampling(max_tokens=cache.max_positions, forced_tokens=(9,) * cache.max_positions)
    [completion] = ended(name, how)
    assert len(completion.token_ids) == cache.max_positions
    assert completion.finish_reason == "length"


def test_a_seed_gives_the_same_answer_in_any_batch(tmp_path: Path) -> None:
    """The model is sure of nothing, because its weights are random."""
    family = dict(families())["blip"]
    synthesize(family, tmp_path, family.sizes["tiny"], 1)
    loaded = load(tmp_path, dtype="float32", device="cpu")
    wild = [Sampling(temperature=2.0, seed=seed, max_tokens=30) for seed in (11, -11, 12, 13)]
    alone = [answered(loaded, sampling)[0].token_ids for sampling in wild]
    together = [answer.token_ids for answer in answered(loaded, *wild, Sampling(max_tokens=30), *wild)]
    assert together[:4] == alone == together[5:]
    assert len(set(alone)) > 1
