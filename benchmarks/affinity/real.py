"""Replicas of a miniature on a Ray cluster of this machine, asked as the router asks them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.affinity.report import Result, percentile
from router.backends.ray import RayBackend
from router.resilience.resilient import ResilientBackend
from serve_args.cluster_environment import ONE_LOOP
from tests.images import scenes
from tests.router.cluster import WITHOUT_TOKEN, cluster
from vlm.engine.config import EngineStats
from vlm.types import Request, Sampling

MODEL = "blip-large"
FLOAT_BYTES = 4
READY_S = 400
PATIENT = {"RAY_raylet_start_wait_time_s": "120"}
"""A machine that does other work meanwhile starts slowly."""
TOKENS = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        replicas: Their number.
        cached: Images that the encoder's cache of each of them keeps.
        clients: How many ask, one question after the other.
        by_image: The setting ``route_by_image``.
    """

    replicas: int
    cached: int
    clients: int
    by_image: bool


def measure(plan: Plan, numbers: Sequence[int]) -> Result:
    """Ask about one image after the other; the second half is counted."""
    images = dict(zip(sorted(set(numbers)), scenes(len(set(numbers))), strict=True))
    with cluster({**ONE_LOOP, **PATIENT}):
        _deploy(plan)
        return asyncio.run(_asked(plan, [images[number] for number in numbers]))


def _deploy(plan: Plan) -> None:
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    deployment = {"name": "Replica", "num_replicas": plan.replicas, "ray_actor_options": {"num_cpus": 0}}
    app = {"name": MODEL, "route_prefix": None, "import_path": "deployments.app:build", "args": _args(plan)}
    client: Any = _get_global_client()
    client.deploy_apps(ServeDeploySchema.model_validate({"applications": [{**app, "deployments": [deployment]}]}))
    deadline = time.monotonic() + READY_S
    while (found := client.get_serve_details()["applications"].get(MODEL, {})).get("status") != "RUNNING":
        if time.monotonic() > deadline:
            raise SystemExit(f"error: the replicas are not ready after {READY_S} s: {found.get('message')}")
        time.sleep(0.2)


def _args(plan: Plan) -> dict[str, Any]:
    engine = {
        "encoder_cache_bytes": plan.cached * features_bytes(), "processor_cache_bytes": 0, "decode_processes": 0,
        "max_batch": 8, "cache_bytes": 32 * 1024**2,
    }  # fmt: skip
    model = {"checkpoint": f"miniatures/{MODEL}", "device": "cpu", "dtype": "float32", "threads": 1}
    return {**model, "route_by_image": plan.by_image, "engine": engine, **WITHOUT_TOKEN}


def features_bytes() -> int:
    """Size of an encoded image of the miniature."""
    config = json.loads((Path("miniatures") / MODEL / "config.json").read_text("utf-8"))["vision_config"]
    patches = (config["image_size"] // config["patch_size"]) ** 2
    return int((patches + 1) * config["hidden_size"] * FLOAT_BYTES)


async def _asked(plan: Plan, images: Sequence[bytes]) -> Result:
    backend = ResilientBackend(RayBackend())
    half = len(images) // 2
    await _ask_all(backend, images[:half], plan.clients)
    before = await _stats()
    seconds = await _ask_all(backend, images[half:], plan.clients)
    after = await _stats()
    hits = sum(one.image_hits for one in after) - sum(one.image_hits for one in before)
    taken = sorted(_asked_of(after, before))
    imbalance = taken[-1] * len(taken) / sum(taken)
    return Result(
        plan.replicas, plan.by_image, hits / sum(taken), imbalance, percentile(seconds, 0.5), percentile(seconds, 0.95)
    )


def _asked_of(after: Sequence[EngineStats], before: Sequence[EngineStats]) -> Iterator[int]:
    """Images that each replica was asked about. Replicas answer in the same order each time."""
    for now, then in zip(after, before, strict=True):
        yield now.image_hits + now.images_encoded - then.image_hits - then.images_encoded


async def _ask_all(backend: ResilientBackend, images: Sequence[bytes], clients: int) -> list[float]:
    """Seconds of each answer."""
    left, seconds = iter(images), list[float]()

    async def ask() -> None:
        for image in left:
            began = time.perf_counter()
            sampling = Sampling(max_tokens=TOKENS, num_beams=1, temperature=0)
            async for _ in backend.generate(MODEL, Request(image, sampling=sampling, stream=False)):
                pass
            seconds.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(ask())
    return seconds


async def _stats() -> list[EngineStats]:
    """Of every replica, always in the same order."""
    from ray import serve

    answers = serve.get_app_handle(MODEL).broadcast("stats")  # from this loop, in which the cluster's handles work
    found: list[EngineStats] = await asyncio.to_thread(answers.results)
    return found
