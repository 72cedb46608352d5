"""What a replica shows of its engine: the counters, read every few seconds. The engine knows nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from metrics.base import Labels, Metrics
from metrics.catalogue import (
    ENGINE_PLACES,
    ENGINE_QUEUE,
    ENGINE_REQUESTS,
    ENGINE_RUNNING,
    ENGINE_WAITING,
    IMAGE_HITS,
    IMAGES_ENCODED,
    KV_BLOCKS,
    PREEMPTIONS,
    ROWS_DONE,
    STEPS_DONE,
    Metric,
)
from metrics.ray import RayMetrics

if TYPE_CHECKING:
    from vlm.engine.config import EngineStats

PLAIN: Mapping[str, Metric] = {
    "running": ENGINE_RUNNING,
    "waiting": ENGINE_WAITING,
    "accepted": ENGINE_REQUESTS,
    "queue_s": ENGINE_QUEUE,
    "steps": STEPS_DONE,
    "rows": ROWS_DONE,
    "preemptions": PREEMPTIONS,
    "images_encoded": IMAGES_ENCODED,
    "image_hits": IMAGE_HITS,
}
"""The metric of each field of :class:`~vlm.engine.config.EngineStats` that is one number."""


def watch_engine(metrics: Metrics, model: str, stats: Callable[[], EngineStats]) -> None:
    """Show the counters of an engine."""

    def one(field: str) -> Callable[[], Mapping[Labels, float]]:
        return lambda: {(model,): float(getattr(stats(), field))}

    def places() -> Mapping[Labels, float]:
        now = stats()
        return {(model, "used"): now.used_places, (model, "free"): now.total_places - now.used_places}

    def blocks() -> Mapping[Labels, float]:
        now = stats()
        free = now.total_blocks - now.used_blocks - now.cached_blocks
        return {(model, "used"): now.used_blocks, (model, "cached"): now.cached_blocks, (model, "free"): free}

    for field, metric in PLAIN.items():
        metrics.watch(metric, one(field))
    metrics.watch(ENGINE_PLACES, places)
    metrics.watch(KV_BLOCKS, blocks)


def shown_by_ray(stats: Callable[[], EngineStats]) -> RayMetrics | None:
    """The metrics of this replica, named after its application; None outside Serve, where nobody collects them."""
    import ray

    if not ray.is_initialized():
        return None
    from ray import serve

    metrics = RayMetrics()
    watch_engine(metrics, serve.get_replica_context().app_name, stats)
    return metrics
