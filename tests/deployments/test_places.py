"""One number of each model, its ``max_batch``, says how many requests may be in the router, a replica and an engine."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

import deployments.app
from deployments.app import REFUSAL_MARGIN
from deployments.config import ModelConfig
from router.admission.capacity import Capacity
from router.admission.rule import Admission, Asked
from router.config import RouterConfig
from vlm.engine.config import EngineConfig
from vlm.engine.places import Demand, Places
from vlm.errors import Overloaded

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own, while it is imported
    import ray.serve  # noqa: F401

ROOT = Path(__file__).parents[2]
CONFIGS = ("serve_config.yaml", "serve_config.local.yaml")
OTHERS = (64, 8, 1, 24)


def args_of(name: str, batches: tuple[int, ...] = ()) -> tuple[RouterConfig, dict[str, Mapping[str, Any]]]:
    """The router's settings, and the arguments of each model, with other batches if they are given."""
    router, *models = yaml.safe_load((ROOT / name).read_text("utf-8"))["applications"]
    for model, batch in zip(models, batches, strict=False):
        engine = {**model["args"]["engine"], "max_batch": batch, "max_waiting": 2 * batch}
        model["args"] = {**model["args"], "engine": engine}
    return RouterConfig.from_args(router["args"]), {model["name"]: model["args"] for model in models}


def let_in(router: RouterConfig, model: str, engines: Mapping[str, EngineConfig], routers: int = 1) -> int:
    """How many requests of many callers one of so many routers lets in to a replica of each model."""
    capacities = {
        name: Capacity(1, routers, slots=engine.max_batch, rows=engine.max_batch) for name, engine in engines.items()
    }
    rule = Admission(capacities.__getitem__, router.max_queue_s, router.places_per_replica)
    with ExitStack() as held:
        for number in range(10_000):
            try:
                held.enter_context(rule.admitted(Asked(model, f"caller {number}", 100.0)))
            except Overloaded:
                return number
    raise AssertionError("nothing is refused")


@pytest.mark.parametrize("batches", [(), OTHERS])
@pytest.mark.parametrize("name", CONFIGS)
def test_router_replica_and_engine_follow_from_the_batch(name: str, batches: tuple[int, ...]) -> None:
    router, models = args_of(name, batches)
    engines = {model: ModelConfig.from_args(args).engine for model, args in models.items()}
    for model, args in models.items():
        engine, replica = engines[model], deployments.app.build(args)._bound_deployment
        assert let_in(router, model, engines) == 2 * engine.max_batch
        assert let_in(router, model, engines, routers=2) == 2 * -(-engine.max_batch // 2)
        assert engine.capacity >= 2 * engine.max_batch, "the engine refuses nothing that the routers have let in"
        assert replica.max_ongoing_requests == engine.capacity + REFUSAL_MARGIN, "the engine refuses, not Serve"
        assert replica._deployment_config.max_queued_requests == replica.max_ongoing_requests


@pytest.mark.parametrize("name", CONFIGS)
def test_a_caller_that_the_router_lets_in_finds_places_in_the_engine(name: str) -> None:
    for args in args_of(name)[1].values():
        engine = ModelConfig.from_args(args).engine
        places = Places(engine.capacity, engine.caller_share)
        for _ in range(2 * engine.max_batch):
            places.take(Demand(), "one caller", "a loop")
