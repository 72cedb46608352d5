"""Replicas are counted by time, and before the first request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from router.app import create_app
from router.backends.base import ModelStatus
from router.backends.counting import COUNT_S, counting
from router.backends.ray import RayBackend
from router.config import RouterConfig
from tests.clock import CLOCKED
from tests.router.world import FakeBackend
from vlm.errors import ModelNotReady

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> object:
    return CLOCKED


class Cluster:
    def __init__(self) -> None:
        self.replicas = 1

    def report(self) -> Mapping[str, Mapping[str, Any]]:
        replicas = [{"state": "RUNNING"}] * self.replicas
        deployments = {"Replica": {"replicas": replicas, "target_num_replicas": 1}}
        # Without a replica nobody is asked what it has loaded.
        return {"blip": {"status": "UPDATING", "deployments": deployments, "last_deployed_time_s": 1.0}}


async def test_replicas_are_counted_before_the_first_request_and_then_by_time() -> None:
    cluster = Cluster()
    backend = RayBackend(object(), cluster.report)
    async with counting(backend):
        assert backend.capacity("blip").replicas == 1
        for replicas in (3, 2):
            cluster.replicas = replicas
            await asyncio.sleep(2.5 * COUNT_S)
            assert backend.capacity("blip").replicas == replicas
    cluster.replicas = 7
    await asyncio.sleep(10 * COUNT_S)
    assert backend.capacity("blip").replicas == 2


class Away(FakeBackend):
    counted = 0

    async def models(self) -> Sequence[ModelStatus]:
        self.counted += 1
        if self.counted < 3:
            raise ModelNotReady("The cluster does not answer yet.") if self.counted < 2 else KeyError("status")
        return self.statuses


async def test_a_router_counts_as_long_as_it_runs_whatever_the_cluster_says() -> None:
    backend = Away()
    app = create_app(backend, RouterConfig())
    async with app.router.lifespan_context(app):
        assert backend.counted == 1
        await asyncio.sleep(5.5 * COUNT_S)
    assert backend.counted == 6
