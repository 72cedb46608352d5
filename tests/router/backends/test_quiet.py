"""The controller is asked seldom while nothing changes, and soon where something has."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from router.backends.counting import COUNT_S, counting
from router.backends.ray import RayBackend
from router.backends.snapshot import Snapshot
from tests.clock import CLOCKED
from tests.router.backends.test_ray import Serve, application, at, collected
from tests.router.world import script, words
from vlm.errors import EngineClosed, ModelNotFound, ModelNotReady, VlmError
from vlm.types import Chunk

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> object:
    return CLOCKED


def seconds() -> float:
    return asyncio.get_running_loop().time()


class Cluster(Serve):
    """With the time of each report."""

    def __init__(self, *steps: Chunk | Exception, **applications: Any) -> None:
        super().__init__(*steps, **applications)
        self.times: list[float] = []

    def report(self) -> Mapping[str, Any]:
        self.times.append(self.loop.time())
        return super().report()

    async def reports_in(self, wait_s: float) -> int:
        """How many there are from now on in so many seconds."""
        before = len(self.times)
        await asyncio.sleep(wait_s)
        return len(self.times) - before

    def backend(self) -> RayBackend:
        self.loop = asyncio.get_running_loop()
        return RayBackend(self, self.report)


async def test_the_longer_nothing_changes_the_less_often_the_controller_is_asked() -> None:
    cluster = Cluster(blip=application(RUNNING=1))
    async with counting(cluster.backend()):
        first = await cluster.reports_in(10)
        await asyncio.sleep(290)
        quiet = await cluster.reports_in(300)
    assert 4 <= first <= 10, "a count may come just before a second has passed"
    assert 25 <= quiet <= 30
    pauses = [later - earlier for earlier, later in zip(cluster.times, cluster.times[1:], strict=False)]
    assert max(pauses) <= 10 + COUNT_S


async def test_what_starts_is_noticed_a_tenth_later_at_most() -> None:
    cluster = Cluster(blip=application(RUNNING=1))
    backend = cluster.backend()
    async with counting(backend):
        await asyncio.sleep(1000)
        cluster.applications["blip"] = application(RUNNING=1, STARTING=1)
        await asyncio.sleep(30)
        assert backend.capacity("blip").replicas == 1
        cluster.applications["blip"] = application(RUNNING=2)
        await asyncio.sleep(30 * 0.1 + 2 * COUNT_S)
        assert backend.capacity("blip").replicas == 2


async def test_another_router_is_a_change() -> None:
    cluster = Cluster(blip=application(RUNNING=1))
    backend = cluster.backend()
    async with counting(backend):
        await asyncio.sleep(1000)
        cluster.applications["router"] = application(RUNNING=2)
        await asyncio.sleep(12)
        assert backend.capacity("blip").routers == 2
        assert await cluster.reports_in(6) >= 3


@pytest.mark.parametrize("said_by", ["Ray", "the replica"])
async def test_a_call_that_fails_makes_the_next_look_come_soon(said_by: str) -> None:
    lost = pytest.importorskip("ray.exceptions").RayActorError()
    cluster = Cluster(lost if said_by == "Ray" else Chunk(error=EngineClosed("It stops.")), blip=application(RUNNING=2))
    backend = cluster.backend()
    async with counting(backend):
        await asyncio.sleep(1000)
        cluster.applications["blip"] = application("UNHEALTHY", RUNNING=1)
        with pytest.raises(VlmError):
            await collected(backend, "blip")
        await asyncio.sleep(2.1 * COUNT_S)
        assert backend.capacity("blip").replicas == 1


@pytest.mark.parametrize(
    "before",
    [{}, {"blip": application("DEPLOYING", STARTING=1)}, {"blip": at(0)}],
    ids=["unknown", "starting", "at zero"],
)
async def test_a_request_finds_a_model_a_second_after_it_has_come(before: Mapping[str, Any]) -> None:
    cluster = Cluster(*script(words()), kosmos=application(RUNNING=1), **before)
    backend = cluster.backend()
    async with counting(backend):
        await asyncio.sleep(1000)
        cluster.applications["blip"] = application(RUNNING=1)
        await asyncio.sleep(1.1)
        assert not await backend.asleep("blip")
        assert await collected(backend, "blip")


async def test_names_that_nobody_has_ask_once_a_second_however_many_come() -> None:
    cluster = Cluster(blip=application(RUNNING=1))
    backend = cluster.backend()
    async with counting(backend):
        await asyncio.sleep(1000)
        before = len(cluster.times)
        for _ in range(100):
            with pytest.raises(ModelNotFound):
                await collected(backend, "nobody")
            await asyncio.sleep(0.1)
    assert len(cluster.times) - before <= 11


async def test_a_controller_that_was_away_is_asked_soon() -> None:
    failing = False
    reads: list[float] = []

    def read() -> int:
        reads.append(len(reads))
        if failing:
            raise OSError
        return 1

    snapshot = Snapshot(read, max_age_s=1, quiet_age_s=10)
    for _ in range(300):
        await snapshot.latest()
        await asyncio.sleep(1)
    failing = True
    await asyncio.sleep(11)
    await snapshot.latest()
    failing, before = False, len(reads)
    for _ in range(6):
        await asyncio.sleep(1.01)
        await snapshot.latest()
    assert len(reads) - before >= 4


async def test_nothing_is_known_before_the_first_answer() -> None:
    cluster = Cluster(blip=application(RUNNING=1))
    backend = cluster.backend()
    assert not backend.serves("blip")
    assert backend.capacity("blip").replicas == 0
    cluster.report = lambda: 1 / 0  # type: ignore[assignment,method-assign,return-value]
    with pytest.raises(ModelNotReady):
        await RayBackend(cluster, cluster.report).asleep("blip")


async def test_a_deployment_that_is_called_otherwise_has_a_handle_of_its_own() -> None:
    cluster = Cluster(*script(words()), blip=application(RUNNING=1))
    backend = cluster.backend()
    await collected(backend, "blip")
    renamed = application(RUNNING=1)
    renamed["deployments"] = {"Other": renamed["deployments"]["Replica"]}
    cluster.applications["blip"] = renamed
    await asyncio.sleep(11)
    for _ in range(2):
        await collected(backend, "blip")
    assert cluster.asked_for == ["Replica", "Other"]
