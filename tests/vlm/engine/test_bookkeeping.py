"""What a completion says of how a request was served: times and cached images, also if it was preempted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.images import scene
from tests.vlm.engine.test_core import LONG, completions, drained, sequence, submitted
from tests.vlm.engine.world import BLIP, FLORENCE, NAMES, miniature, plan
from vlm.engine import core as core_module
from vlm.engine.core import Core
from vlm.types import Completion, Request, Sampling


def preempting(name: str) -> Core:
    """Blocks for hardly more than one sequence, and a cache for images, where a preempted one finds its own."""
    loaded = miniature(name)
    return Core(loaded, plan(loaded, 4, 7), 8, encoder_cache_bytes=2**24)


def about(seed: int) -> Request:
    return replace(LONG, image=scene(seed))


@pytest.mark.parametrize("name", NAMES)
def test_an_image_that_was_encoded_for_a_sequence_is_not_cached_for_it_after_a_preemption(name: str) -> None:
    used = preempting(name)
    sequences = submitted(used, miniature(name), [about(number) for number in range(4)])
    for number, one in enumerate(sequences):
        one.image_key = bytes([number])
    found = completions(drained(used), sequences)
    assert any(one.preemptions for one in sequences)
    assert [one.usage.cached_tokens for one in found] == [0] * 4
    [again] = submitted(used, miniature(name), [about(0)])
    again.image_key = bytes([0])
    [cached] = completions(drained(used), [again])
    assert cached.usage.cached_tokens == cached.usage.image_tokens > 0


class Clock:
    """Stands in for ``time``: a second passes with each step."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


def test_times_of_a_preempted_sequence_are_those_of_its_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits in the queue until its first start, and its first token stays its first."""
    clock, used = Clock(), preempting(BLIP)
    monkeypatch.setattr(core_module, "time", clock)
    monkeypatch.setattr("vlm.engine.completion.time", clock)
    sequences = submitted(used, miniature(BLIP), [about(number) for number in range(4)])
    for number, one in enumerate(sequences):
        one.arrived, one.prepare_ms = 90.0 + number, 7.0
    events = used.step()
    while used.busy and clock.now < 400:
        clock.now += 1
        events += used.step()
    found = completions(events, sequences)
    assert sequences[-1].preemptions
    assert sequences[0].preemptions == 0
    for number, (one, completion) in enumerate(zip(sequences, found, strict=True)):
        assert completion.timings.queue_ms == pytest.approx(1000 * (10 - number)), "all started at 100"
        assert completion.timings.first_token_ms == completion.timings.queue_ms
        assert completion.timings.prepare_ms == 7.0
        assert one.started == one.first_token == 100.0
    seconds = 10 + len(found[0].token_ids) - 1
    assert found[0].timings.total_ms == pytest.approx(7 + 1000 * seconds), "one token a second"


def answered(limit: int | None, how: Sampling) -> Completion:
    """The answer to a task that can use so many tokens; the words are forced, so that it does not end by itself."""
    loaded = miniature(BLIP)
    used = Core(loaded, plan(loaded, 2, 20), 8)
    one = sequence(loaded, Request(scene(1), sampling=how))
    one.inputs = replace(one.inputs, limit=limit)
    used.submit(one)
    [completion] = completions(drained(used), [one])
    return completion


@pytest.mark.parametrize(
    ("limit", "max_tokens", "reason"), [(None, 3, "length"), (3, 3, "stop"), (4, 3, "length"), (2, 3, "length")]
)
def test_an_answer_as_long_as_its_task_can_use_is_complete(limit: int | None, max_tokens: int, reason: str) -> None:
    completion = answered(limit, Sampling(max_tokens=max_tokens, forced_tokens=(9,) * 9))
    assert (completion.finish_reason, len(completion.token_ids)) == (reason, max_tokens)


def test_an_end_that_the_model_chose_is_a_stop_and_a_forced_one_is_not() -> None:
    [end] = miniature(BLIP).model.eos_token_ids
    assert answered(None, Sampling(max_tokens=2, forced_tokens=(9, end))).finish_reason == "length"
    assert answered(None, Sampling(max_tokens=2, forced_last_token=end)).finish_reason == "length"
    whole = answered(None, Sampling())
    assert (whole.finish_reason, whole.token_ids[-1]) == ("stop", end)
    cut = answered(None, Sampling(max_tokens=len(whole.token_ids) - 1))
    assert (cut.finish_reason, cut.token_ids) == ("length", whole.token_ids[:-1])


def test_a_search_reports_how_it_ended() -> None:
    """A last token that was forced ends nothing, though it is an end."""
    loaded = miniature(FLORENCE)
    [end] = loaded.model.eos_token_ids
    used = Core(loaded, plan(loaded, 4, 40), 8)
    sequences = submitted(used, loaded, [Request(scene(1))] * 3)
    for one, most, last in zip(sequences, (40, 3, 3), (None, None, end), strict=True):
        one.sampling = replace(one.sampling, num_beams=3, max_tokens=most, forced_last_token=last)
    found = completions(drained(used), sequences)
    assert [one.finish_reason for one in found] == ["stop", "length", "length"]
    assert [len(one.token_ids) for one in found[1:]] == [3, 3]
    assert found[2].token_ids[-1] == end
