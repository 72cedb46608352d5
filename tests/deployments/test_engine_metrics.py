"""What a replica shows of its engine."""

from __future__ import annotations

from dataclasses import replace

from deployments.engine_metrics import PLAIN, shown_by_ray, watch_engine
from metrics.catalogue import CATALOGUE, ENGINE_PLACES, KV_BLOCKS, STEPS_DONE
from metrics.prometheus import PrometheusMetrics
from tests.metrics.exposed import samples
from vlm.engine.config import EngineStats

STATS = EngineStats(
    running=3, waiting=2, max_batch=32, total_blocks=100, used_blocks=30, cached_blocks=20, images_encoded=7,
    image_hits=4, accepted=5, used_places=6, total_places=96, queue_s=0.25, steps=11, rows=44, preemptions=1,
)  # fmt: skip


def test_every_number_of_an_engine_is_shown_as_of_now() -> None:
    metrics = PrometheusMetrics()
    now = STATS
    watch_engine(metrics, "blip-large", lambda: now)
    found = samples(metrics.exposition())
    for field, metric in PLAIN.items():
        assert found.value(metric.name, model="blip-large") == getattr(STATS, field)
    states = {
        state: found.value(KV_BLOCKS.name, model="blip-large", state=state) for state in ("used", "cached", "free")
    }
    assert states == {"used": 30, "cached": 20, "free": 50}
    assert found.value(ENGINE_PLACES.name, model="blip-large", state="free") == 90
    now = replace(STATS, steps=12)
    assert samples(metrics.exposition()).value(STEPS_DONE.name, model="blip-large") == 12


def test_every_engine_metric_of_the_catalogue_is_shown() -> None:
    metrics = PrometheusMetrics()
    watch_engine(metrics, "blip-large", lambda: STATS)
    assert samples(metrics.exposition()).names == {one.name for one in CATALOGUE if "_engine_" in one.name}


def test_outside_serve_nothing_is_collected() -> None:
    assert shown_by_ray(lambda: STATS) is None
