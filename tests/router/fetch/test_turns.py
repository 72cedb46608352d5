"""Turns to download: how many there are, who is next, and that none is lost."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.fetch.turns import Turns
from tests.clock import CLOCKED, run_clocked
from vlm.errors import Overloaded

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> object:
    return CLOCKED


async def wait(turns: Turns, caller: str, host: str, order: list[str], hold_s: float = 1.0) -> None:
    async with turns.turn(caller, host):
        order.append(f"{caller}@{host}")
        await asyncio.sleep(hold_s)


@pytest.mark.parametrize(
    ("turns", "asks", "at_once"),
    [
        (Turns(2, 9, 9), "a@x b@y c@z", 2),
        (Turns(9, 2, 9), "a@x b@x c@x", 2),
        (Turns(9, 9, 2), "a@x a@y a@z", 2),
        (Turns(9, 1, 1), "a@x b@y a@y b@x", 2),
    ],
)
async def test_every_limit_holds(turns: Turns, asks: str, at_once: int) -> None:
    order: list[str] = []
    async with asyncio.TaskGroup() as group:
        for ask in asks.split():
            caller, host = ask.split("@")
            group.create_task(wait(turns, caller, host, order))
        await asyncio.sleep(0.5)
        assert turns.running == len(order) == at_once
    assert turns.running == 0
    assert len(order) == len(asks.split())


async def test_a_busy_host_does_not_hold_up_another() -> None:
    turns, order = Turns(2, 1, 9), list[str]()
    async with asyncio.TaskGroup() as group:
        for ask in ("a@slow", "b@slow", "c@slow", "d@fast"):
            caller, host = ask.split("@")
            group.create_task(wait(turns, caller, host, order))
    assert order == ["a@slow", "d@fast", "b@slow", "c@slow"]


async def test_who_waits_too_long_is_refused_and_may_try_again() -> None:
    turns = Turns(1, 1, 1)
    async with turns.turn("a", "x"):
        with pytest.raises(Overloaded, match="try again"):
            await wait(turns, "b", "y", [])
    assert turns.running == 0
    async with turns.turn("b", "y"):
        assert turns.running == 1


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_a_turn_that_comes_with_a_cancellation_is_given_back(steps: int) -> None:
    turns = Turns(1, 1, 1)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(turns.turn("a", "x"))
        waiting = asyncio.create_task(wait(turns, "b", "y", []))
        await asyncio.sleep(0)
        if steps == 0:
            waiting.cancel()
    if steps:
        waiting.cancel()  # its turn has come, but it has not run yet
    if steps == 2:
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert turns.running == 0


ASK = st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.floats(0, 3), st.floats(0, 3), st.floats(0, 9))


@given(st.lists(ASK, max_size=20))
def test_whatever_happens_no_turn_is_lost(asks: list[tuple[str, str, float, float, float]]) -> None:
    async def play() -> None:
        turns = Turns(3, 2, 2)

        async def ask(caller: str, host: str, after_s: float, hold_s: float, patience_s: float) -> None:
            await asyncio.sleep(after_s)
            try:
                async with asyncio.timeout(patience_s):
                    await wait(turns, caller, host, [], hold_s)
            except (TimeoutError, Overloaded):
                pass

        async with asyncio.TaskGroup() as group:
            for one in asks:
                group.create_task(ask(*one))
        assert turns.running == 0
        async with asyncio.TaskGroup() as group:
            for caller, host in ("ax", "bx", "cy"):
                group.create_task(wait(turns, caller, host, []))
            await asyncio.sleep(0.5)
            assert turns.running == 3

    run_clocked(play())
