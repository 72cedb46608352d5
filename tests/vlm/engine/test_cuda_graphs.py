"""Decode steps as recordings. Without a GPU, a recording is a trace that is replayed on the same buffers.

It shows what a CUDA graph needs: what a step launches depends on its shape alone, and all numbers that change from step
to step are in buffers that stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Rows
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from tests.images import scene
from tests.vlm.engine.test_core import assert_empty, completions, core, drained, submitted
from tests.vlm.engine.world import BLIP, FLORENCE, KOSMOS, crowd, miniature
from vlm.engine import cuda_graphs
from vlm.engine.blocks import BLOCK_SIZE, CachePlan
from vlm.engine.core import Core
from vlm.engine.cuda_graphs import DecodeGraphs, Recording, Step, padded
from vlm.engine.kv_cache import DecodeShape, KVCache
from vlm.models.base import LoadedModel
from vlm.models.processor import CacheSpec
from vlm.types import Completion, Request, Sampling, Task

MOONDREAM = "moondream-2"


class Tracer:
    """Records what PyTorch executes; a replay reads and writes the memory that the recorded run did."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, run: Callable[[], Tensor]) -> Recording:
        self.recorded += 1
        with torch.inference_mode(False), torch.no_grad():
            graph = make_fx(partial(run))()
        result = torch.empty(0)

        def replay() -> None:
            self.replayed += 1
            result.set_(graph())  # like a graph's result, it is at hand without being returned

        return Recording(replay, result)


def recorded(used: Core, record: Tracer) -> DecodeGraphs:
    """Have the core's decode steps recorded as on a GPU."""
    runner = used._runner
    runner._graphs = DecodeGraphs(runner.model.forward, runner._cache, record)
    return runner._graphs


def answers(used: Core, loaded: LoadedModel, requests: Rows[Request]) -> list[Completion]:
    sequences = submitted(used, loaded, requests)
    found = completions(drained(used), sequences)
    assert_empty(used)
    return found


def captions(count: int, tokens: int = 9) -> list[Request]:
    return [Request(scene(number), sampling=Sampling(max_tokens=tokens)) for number in range(count)]


def requests_to(name: str) -> list[Request]:
    """Requests of different lengths, greedy, sampled and with beams as far as the model has them."""
    if name != MOONDREAM:
        return crowd(name, 14, seed=5)
    tasks = (Task("caption"), Task("query", text="How many shapes are there?"), Task("detect", labels=("circle",)))
    return [
        Request(scene(number), task=tasks[number % 3], sampling=Sampling(max_tokens=12 + number)) for number in range(7)
    ]


@pytest.mark.parametrize("name", [BLIP, FLORENCE, KOSMOS, MOONDREAM])
def test_recorded_steps_give_the_same_answers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "STEPS_BEFORE_RECORDING", 0)
    loaded, requests = miniature(name), requests_to(name)
    expected = answers(core(loaded, rows=8), loaded, requests)
    used, tracer = core(loaded, rows=8), Tracer()
    recorded(used, tracer)
    found = answers(used, loaded, requests)
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]
    assert 0 < tracer.recorded < tracer.replayed


def test_a_shape_is_recorded_when_it_comes_often_enough() -> None:
    loaded = miniature(BLIP)
    used, tracer = core(loaded), Tracer()
    recorded(used, tracer)
    answers(used, loaded, captions(1, tokens=3))  # two steps
    assert tracer.recorded == 0
    answers(used, loaded, captions(2, tokens=3))
    answers(used, loaded, captions(1, tokens=3))
    assert tracer.recorded == 1


def test_one_row_that_grows_shares_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a recording it would read exactly its positions, which are others at each step."""
    monkeypatch.setattr(cuda_graphs, "STEPS_BEFORE_RECORDING", 0)
    loaded = miniature(BLIP)
    used, tracer = core(loaded), Tracer()
    recorded(used, tracer)
    endless = Sampling(max_tokens=2 * BLOCK_SIZE, logit_bias=tuple((end, -100.0) for end in loaded.model.eos_token_ids))
    answers(used, loaded, [Request(scene(0), sampling=endless)])
    assert tracer.recorded == 2
    assert tracer.replayed == 2 * BLOCK_SIZE - 1


def accelerator_error(code: int) -> RuntimeError:
    """As torch raises it for each error of CUDA, those of recording among them."""
    error = torch.AcceleratorError(f"CUDA error {code}")
    vars(error)["error_code"] = code
    return error


class Failing(Tracer):
    """Records one step, and fails at the next."""

    def __init__(self, error: RuntimeError) -> None:
        super().__init__()
        self.error = error
        self.failed = 0

    def __call__(self, run: Callable[[], Tensor]) -> Recording:
        if not self.recorded:
            return super().__call__(run)
        self.failed += 1
        raise self.error


OUT_OF_MEMORY, ILLEGAL_ADDRESS, CAPTURE_UNSUPPORTED = 2, 700, 900


@pytest.mark.parametrize(
    "error",
    [RuntimeError("no"), accelerator_error(OUT_OF_MEMORY), accelerator_error(CAPTURE_UNSUPPORTED)],
    ids=["other", "out of memory", "unsupported"],
)
def test_a_step_that_cannot_be_recorded_is_run_all_the_same(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cuda_graphs, "STEPS_BEFORE_RECORDING", 0)
    loaded, requests = miniature(BLIP), captions(4)
    expected = answers(core(loaded), loaded, requests)
    used, failing = core(loaded), Failing(error)
    graphs = recorded(used, failing)
    found = answers(used, loaded, requests)
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]
    assert failing.failed == 1
    assert not graphs._recordings  # they hold memory, and are not used any more
    assert "will be slower" in caplog.text


def test_a_broken_device_is_no_reason_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "STEPS_BEFORE_RECORDING", 0)
    error = accelerator_error(ILLEGAL_ADDRESS)

    def fails(run: Callable[[], Tensor]) -> Recording:
        raise error

    graphs = DecodeGraphs(lambda embeddings, context: embeddings, cache_of(), fails)
    with pytest.raises(torch.AcceleratorError) as caught:
        graphs.hidden(torch.zeros(10, 1, 1), Step([[1]], [0], [0]))
    assert caught.value is error


def test_the_least_recently_used_recording_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "STEPS_BEFORE_RECORDING", 0)
    monkeypatch.setattr(cuda_graphs, "MAX_GRAPHS", 1)
    loaded, requests = miniature(BLIP), captions(3)
    expected = answers(core(loaded), loaded, requests)
    used = core(loaded)
    graphs = recorded(used, Tracer())
    found = answers(used, loaded, requests)
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]
    assert len(graphs._recordings) == 1


def cache_of(cross_positions: int = 0, slots: int = 10, beams: int = 1) -> KVCache:
    spec = CacheSpec(layers=1, kv_heads=1, head_dim=1, max_positions=200, cross_positions=cross_positions)
    return KVCache(spec, CachePlan(slots, 2, 0, beams), torch.float32, torch.device("cpu"))


@pytest.mark.parametrize(
    ("exact", "expected"),
    [
        (DecodeShape(1, 1), DecodeShape(1, 16, masked=True)),
        (DecodeShape(5, 144), DecodeShape(6, 160, masked=True)),
        # The cache has no more rows, and a sequence no more blocks.
        (DecodeShape(9, 193), DecodeShape(10, 208, masked=True)),
    ],
)
def test_shapes_are_rounded_up_within_what_there_is(exact: DecodeShape, expected: DecodeShape) -> None:
    assert padded(exact, cache_of()) == expected


def test_cross_attention_is_padded_only_if_it_has_a_mask() -> None:
    cache = cache_of(cross_positions=100)
    alike = DecodeShape(3, 16, masked=True, slots=3, cross_positions=57)
    assert padded(alike, cache) == alike
    assert padded(replace(alike, cross_masked=True), cache) == replace(alike, cross_positions=64, cross_masked=True)
    assert padded(replace(alike, cross_positions=70, cross_masked=True), cache).cross_positions == 100


def test_searches_are_padded_by_whole_searches() -> None:
    cache = cache_of(cross_positions=100, slots=7, beams=3)
    step = DecodeShape(15, 16, masked=True, slots=5, cross_positions=57, beams=3)
    assert padded(step, cache) == replace(step, rows=18, slots=6)
    assert padded(replace(step, rows=21, slots=7), cache).rows == 21
