"""Serve asks our hook which replica gets a request: three replicas of a fake model, as on a cluster with HAProxy."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from deployments.affinity import FACTOR, SPARE
from deployments.app import build
from router.backends.ray import RayBackend
from router.resilience.resilient import ResilientBackend
from serve_args.cluster_environment import CLUSTER
from tests.router.cluster import WITHOUT_TOKEN, cluster
from tests.router.test_haproxy import free_ports
from tests.router.test_serve import INFO, NO_WAITING
from tests.router.world import script, words
from vlm.errors import EngineClosed
from vlm.types import Chunk, ModelInfo, Request

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.ray,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # Ray's own warnings are not ours to fix
    pytest.mark.skipif(sys.platform != "linux", reason="HAProxy comes with Ray on Linux alone"),
]

NAME = "blip-large"
CAPACITY = 40
IMAGES = [bytes([index]) * 5000 for index in range(24)]
PATIENCE_S = 90
LATE = 10
"""Requests of a burst whose replicas are chosen before Serve counts those of the burst's first ones."""


class Model:
    """Answers with the name of its replica, unless the prompt names that and asks for something else."""

    async def describe(self) -> ModelInfo:
        return INFO

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        yield await self.answer(request)

    async def answer(self, request: Request) -> Chunk:
        from ray import serve

        name = serve.get_replica_context().replica_id.unique_id
        what, _, argument = request.prompt.partition(" ")
        if what == "wait":
            while not await asyncio.to_thread(os.path.exists, argument):
                await asyncio.sleep(0.05)
        if what == "die" and argument == name:
            os._exit(1)
        if what == "close" and argument == name:
            return Chunk(error=EngineClosed("The engine is stopping."))
        return script(words(name))[-1]


def deploy() -> None:
    from ray import serve

    from deployments.routing import by_image

    options: dict[str, Any] = {"max_ongoing_requests": CAPACITY, "request_router_config": rebuilt(by_image(CAPACITY))}
    model: Any = serve.deployment(
        name="Replica", num_replicas=3, ray_actor_options={"num_cpus": 0}, **NO_WAITING, **options
    )
    serve.run(model(Model).bind(), name=NAME, route_prefix=None, external_scaler_enabled=True)


def rebuilt(config: Any) -> Any:
    """As Serve builds it anew where a config has options for the deployment."""
    return type(config)(**config.model_dump())


def scale(replicas: int) -> None:
    import ray
    from ray.serve._private.common import DeploymentID
    from ray.serve.context import _get_global_client

    controller = _get_global_client()._controller
    ray.get(controller.update_deployment_replicas.remote(DeploymentID("Replica", NAME), replicas))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def system() -> Iterator[None]:
    slow = {"RAY_raylet_start_wait_time_s": "120"}  # a machine that does other work meanwhile
    with cluster({**CLUSTER, **free_ports(), **slow, "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0"}):
        deploy()
        yield


class Asking:
    """Asks as the router does."""

    def __init__(self) -> None:
        self._backend = ResilientBackend(RayBackend())

    async def where(self, image: bytes | None, prompt: str = "", *, stream: bool = False) -> str:
        """The replica that has answered."""
        request = Request(image, prompt, stream=stream)
        chunks = [chunk async for chunk in self._backend.generate(NAME, request)]
        assert chunks[-1].completion is not None
        return chunks[-1].completion.text

    async def homes(self) -> Mapping[bytes, str]:
        """Of every image."""
        return {image: await self.where(image) for image in IMAGES}

    async def homes_once(self, replicas: int, other_than: str = "") -> Mapping[bytes, str]:
        """The same, once so many replicas have images, and the other one has none."""
        async with asyncio.timeout(PATIENCE_S):
            while len(names := {*(homes := await self.homes()).values()}) < replicas or other_than in names:
                await asyncio.sleep(0.2)
        return homes


@pytest.fixture(scope="module")
async def asking(system: None) -> Asking:
    asking = Asking()
    await asking.homes_once(3)
    return asking


async def test_an_image_goes_to_the_same_replica_however_it_is_asked_about(asking: Asking) -> None:
    homes = await asking.homes()
    assert len({*homes.values()}) == 3
    assert await asking.homes() == homes
    assert {image: await asking.where(image, stream=True) for image in IMAGES} == homes
    assert len({await asking.where(None) for _ in range(30)}) == 3


async def test_another_router_makes_the_same_choice(asking: Asking) -> None:
    assert await Asking().homes_once(3) == await asking.homes()


async def test_an_image_that_floods_its_replica_goes_to_the_others_too(asking: Asking, tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    waiting = [asyncio.create_task(asking.where(IMAGES[0], f"wait {go_on}")) for _ in range(60)]
    await asyncio.sleep(3)
    go_on.touch()
    taken = Counter(await asyncio.gather(*waiting))
    assert len(taken) == 3
    assert max(taken.values()) < SPARE + FACTOR * 60 / 3 + LATE


async def test_another_attempt_goes_elsewhere_and_others_with_it_for_a_moment(asking: Asking) -> None:
    home = await asking.where(IMAGES[0])
    assert await asking.where(IMAGES[0], f"close {home}") != home
    assert await asking.where(IMAGES[0]) != home
    await asyncio.sleep(1.1)
    assert await asking.where(IMAGES[0]) == home


async def test_a_replica_that_dies_moves_only_its_images_and_its_successor_takes_only_a_share(asking: Asking) -> None:
    before = await asking.homes()
    victim = before[IMAGES[0]]
    assert await asking.where(IMAGES[0], f"die {victim}") != victim
    after = await asking.homes()
    assert victim not in after.values()
    names = {*before.values()}
    assert all(after[image] == home for image, home in before.items() if home != victim and after[image] in names)
    later = await asking.homes_once(3, victim)
    assert {later[image] for image, home in before.items() if home not in (victim, later[image])} <= {
        *later.values()
    } - names


async def test_a_replica_more_takes_only_a_share_of_the_images(asking: Asking) -> None:
    before = await asking.homes()
    await asyncio.to_thread(scale, 4)
    after = await asking.homes_once(4)
    moved = [image for image in IMAGES if after[image] != before[image]]
    assert {after[image] for image in moved} == {*after.values()} - {*before.values()}
    assert len(moved) < len(IMAGES) / 2


@pytest.mark.parametrize("by_image", [True, False])
async def test_a_model_is_routed_by_image_unless_its_config_says_otherwise(*, by_image: bool) -> None:
    from deployments.routing import ImageRouter

    RayBackend()
    application = build({"checkpoint": "x", "route_by_image": by_image, **WITHOUT_TOKEN})
    config = application._bound_deployment._deployment_config.request_router_config
    assert config.is_default_request_router()  # HAProxy accepts no other
    for one in (config, rebuilt(config)):
        assert (one.get_request_router_class() is ImageRouter) is by_image
