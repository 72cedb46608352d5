"""Requests for a model that has no replica yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack

import pytest

from router.admission.hold import Hold
from router.config import RouterConfig
from tests.router.world import CHAT, FakeBackend, body, check_error, client
from vlm.errors import InvalidImage, Overloaded
from vlm.pace import LONGEST_RETRY_S
from vlm.types import Chunk, Request

pytestmark = pytest.mark.anyio


class World:
    """A model ``m`` that is asleep, and another that is not."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sleeping = True
        self.failed = False
        self.hold = Hold(3, 20.0, self.asleep, lambda _model: int(not self.failed), lambda: self.now)
        self.waiting = AsyncExitStack()
        self.answered: list[Callable[[], None]] = []

    async def asleep(self, model: str) -> bool:
        return self.sleeping and model == "m"

    async def ask(self, model: str = "m", remaining_s: float = 100.0) -> None:
        self.answered.append(await self.waiting.enter_async_context(self.hold.waiting(model, remaining_s)))

    async def refused(self, remaining_s: float = 100.0) -> int:
        """How long the next request is told to wait."""
        with pytest.raises(Overloaded, match="'m' is being started") as caught:
            await self.ask(remaining_s=remaining_s)
        assert caught.value.code == "model_not_ready"
        assert caught.value.retry_after_s is not None
        return caught.value.retry_after_s

    async def starts_in(self, seconds: float) -> None:
        """The replica answers those that wait."""
        self.now += seconds
        self.sleeping = False
        for answered in self.answered:
            answered()
        await self.leave()

    async def leave(self) -> None:
        """All of them."""
        await self.waiting.aclose()
        self.waiting, self.answered = AsyncExitStack(), []


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_so_many_wait_and_the_others_are_told_when_to_come(world: World) -> None:
    for _ in range(3):
        await world.ask()
    assert await world.refused() == 20
    world.now += 12.5
    assert await world.refused() == 8
    world.now += 100.0
    assert await world.refused() == 1
    assert world.hold.held("m") == 3


async def test_a_model_with_replicas_is_not_held_up(world: World) -> None:
    for _ in range(10):
        await world.ask("other")
    assert world.hold.held("other") == 0


async def test_who_would_be_late_does_not_wait_but_the_first_one_always_does(world: World) -> None:
    await world.ask(remaining_s=5.0)  # it starts the replica
    assert await world.refused(remaining_s=19.0) == 20
    await world.ask(remaining_s=21.0)
    world.now += 5.0
    await world.ask(remaining_s=16.0)


async def test_a_start_is_measured(world: World) -> None:
    await world.ask()
    await world.ask()
    await world.starts_in(7.0)
    assert world.hold.cold_start_s("m") == 7.0
    assert world.hold.cold_start_s("other") == 20.0
    world.sleeping = True
    for _ in range(3):
        await world.ask()
    assert await world.refused() == 7


async def test_a_start_is_over_when_a_replica_is_seen(world: World) -> None:
    await world.ask()
    world.now, world.sleeping = 104.0, False
    await world.ask()
    await world.starts_in(50.0)  # a long answer
    assert world.hold.cold_start_s("m") == 4.0


async def test_who_leaves_makes_room_and_measures_nothing(world: World) -> None:
    async def leaves() -> None:
        async with world.hold.waiting("m", 100.0):
            world.now += 1.0
            raise InvalidImage("No.")

    for _ in range(3):
        with pytest.raises(InvalidImage):
            await leaves()
    assert world.hold.held("m") == 0
    assert world.hold.cold_start_s("m") == 20.0
    for _ in range(3):
        await world.ask()
    assert await world.refused() == 20  # counted from the first of those that wait now


async def test_a_stream_that_ends_with_an_error_measures_nothing(world: World) -> None:
    """The error is an event by then, so that nothing is raised here."""
    await world.ask()
    world.now += 120.0
    await world.leave()
    assert world.hold.cold_start_s("m") == 20.0
    await world.ask()
    assert world.hold.held("m") == 1


async def test_a_start_that_has_failed_is_over_and_not_measured(world: World) -> None:
    await world.ask()
    world.now, world.sleeping, world.failed = 103.0, False, True
    await world.ask()
    assert world.hold.held("m") == 0
    world.sleeping = True
    await world.ask()
    await world.ask()
    await world.ask()
    assert await world.refused() == 20


async def test_an_answer_of_an_earlier_start_says_nothing_of_the_next(world: World) -> None:
    await world.ask()
    world.sleeping = False
    await world.ask()
    world.now, world.sleeping = 200.0, True
    await world.ask()
    world.now = 250.0
    world.answered[0]()
    assert (world.hold.held("m"), world.hold.cold_start_s("m")) == (1, 0.0)


async def test_nobody_is_told_to_wait_for_ever(world: World) -> None:
    slow = Hold(1, 900.0, world.asleep, lambda _model: 0, lambda: world.now)
    async with slow.waiting("m", 1000.0):
        with pytest.raises(Overloaded) as caught:
            await world.waiting.enter_async_context(slow.waiting("m", 1000.0))
    assert caught.value.retry_after_s == LONGEST_RETRY_S


class Starting(FakeBackend):
    """A model whose first replica starts when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.started = asyncio.Event()
        self.waiting = asyncio.Semaphore(0)

    async def asleep(self, model: str) -> bool:
        return model == "blip-large" and not self.started.is_set()

    async def generate(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        self.waiting.release()
        await self.started.wait()
        async for chunk in super().generate(model, request):
            yield chunk


async def test_the_router_refuses_at_once_what_it_does_not_hold() -> None:
    """A request in another format counts, too; unknown models are still unknown."""
    backend = Starting()
    async with client(backend, RouterConfig(max_held=2, cold_start_s=17.0)) as http:
        held = [asyncio.create_task(http.post(CHAT, json=body(stream=stream))) for stream in (False, True)]
        for _ in held:
            await backend.waiting.acquire()
        refused = await http.post(CHAT, json=body())
        check_error(refused, 503, "model_not_ready", None)
        assert refused.headers["retry-after"] in ("16", "17")
        other = await http.post("/v1/responses", json={"model": "blip-large", "input": "what?"})
        assert (other.status_code, "retry-after" in other.headers) == (503, True)
        backend.started.set()
        assert [(await one).status_code for one in held] == [200, 200]
        assert (await http.post(CHAT, json=body())).status_code == 200
