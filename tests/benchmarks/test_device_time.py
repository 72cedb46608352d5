"""A model on a device of its own takes the device's time, and goes through the same engine."""

from __future__ import annotations

import time
from dataclasses import replace

import anyio
import pytest

from benchmarks.device_time import TIMES, DeviceTimes, build, on_a_device, timed
from benchmarks.http.systems import config_of
from vlm.checkpoint.files import Checkpoint
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.image.sample import sample_image
from vlm.loading import load
from vlm.types import Completion, Request, Sampling

TOKENS = 5


@pytest.mark.parametrize("name", ["blip-large", "florence-2-base", "kosmos-2"])
def test_an_answer_takes_the_time_of_its_image_and_of_its_passes(name: str) -> None:
    loaded = load(Checkpoint.open(f"miniatures/{name}"), device="cpu", dtype="float32")
    times = DeviceTimes(step_ms=10.0, row_ms=1.0, image_ms=20.0)
    began = time.perf_counter()
    with Engine(replace(loaded, model=timed(loaded.model, times)), EngineConfig(max_batch=4)) as engine:

        async def ask() -> Completion:
            return await engine.complete(Request(sample_image(0, 64, 48), sampling=Sampling(max_tokens=TOKENS)))

        answer = anyio.run(ask)
    took_ms = 1000 * (time.perf_counter() - began)
    assert answer.usage.completion_tokens == TOKENS
    assert took_ms >= 20 + TOKENS * 11


def test_only_the_named_model_is_on_the_device() -> None:
    found = on_a_device(config_of("kosmos-2"), "kosmos-2", DeviceTimes(step_ms=3.0))
    router, model = found["applications"]
    assert (router["import_path"], TIMES in router["args"]) == ("router.app:build", False)
    assert model["import_path"] == f"{build.__module__}:build"
    assert model["args"][TIMES] == {"step_ms": 3.0, "row_ms": 0.14, "image_ms": 4.2}
