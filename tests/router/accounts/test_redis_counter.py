"""One Redis for several routers: exact over all, and what happens when it or a router dies."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, closing, suppress
from pathlib import Path

import pytest
import redis

from accounts.errors import AccountsError, AccountsUnavailable, LimitReached
from accounts.types import EVERY_MODEL, Limits
from router.accounts.limits import RateLimits, Taken, open_limits
from router.accounts.redis_counter import RedisCounter
from tests.accounts.servers import Redis, program, running_redis

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[3]
LEASE_S = 1.5


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A server that the test may stop and start."""
    if not program("redis-server"):
        pytest.skip("there is no redis-server on this machine (Debian: apt install redis-server)")
    with running_redis() as server:
        yield server


Connect = Callable[..., RateLimits]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens limits, each as another router would, and closes them in the end."""
    async with AsyncExitStack() as opened:

        def open_at(
            url: str, *, lease_s: float = LEASE_S, timeout_s: float = 5.0, window_s: float = 60.0
        ) -> RateLimits:
            counter = RedisCounter(url, window_s=window_s, lease_s=lease_s, timeout_s=timeout_s)
            limits = RateLimits(counter, counter)
            opened.push_async_callback(limits.close)
            return limits

        yield open_at


def of_all(**most: int) -> dict[str, Limits]:
    return {EVERY_MODEL: Limits(**most)}


async def is_full(limits: RateLimits, stated: dict[str, Limits]) -> bool:
    try:
        (await limits.take("key_a", "m", stated)).end()
    except LimitReached:
        return True
    return False


async def until_free(limits: RateLimits, stated: dict[str, Limits]) -> None:
    async with asyncio.timeout(20):
        while not await is_free(limits, stated):
            await asyncio.sleep(0.01)


async def is_free(limits: RateLimits, stated: dict[str, Limits]) -> bool:
    try:
        return not await is_full(limits, stated)
    except AccountsUnavailable:
        return False


ASK_150 = """
import asyncio, sys
from accounts.errors import LimitReached
from accounts.types import Limits
from router.accounts.limits import Taken, open_limits

async def ask(url: str, kind: str) -> int:
    limits = open_limits(url)
    stated = {"*": Limits(**{kind: 100}), "m": Limits(requests=1000)}
    asked = [limits.take(f"key_{kind}", "m", stated, images=1, tokens=1) for _ in range(150)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(result, Taken | LimitReached) for result in results), results
    return sum(isinstance(result, Taken) for result in results)

async def main(url: str, kinds: list[str]) -> None:
    for kind in kinds:
        print(await ask(url, kind))

asyncio.run(main(sys.argv[1], sys.argv[2:]))
"""


def test_of_300_in_two_processes_exactly_100_are_let_in(redis_url: str) -> None:
    kinds = ["requests", "images", "tokens"]
    command = [sys.executable, "-c", ASK_150, redis_url, *kinds]
    routers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [router.communicate(timeout=60)[0].split() for router in routers]
    assert [int(one) + int(other) for one, other in zip(*said, strict=True)] == [100] * len(kinds)


async def test_places_are_counted_over_all_routers(redis_url: str, connect: Connect) -> None:
    one, other, stated = connect(redis_url), connect(redis_url), of_all(concurrent=100)
    asked = [limits.take("key_a", "m", stated) for _ in range(150) for limits in (one, other)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    taken = [result for result in results if isinstance(result, Taken)]
    assert len(taken) == 100
    await asyncio.sleep(1.5 * LEASE_S)  # they run on, and their leases are renewed
    assert await is_full(one, stated)
    assert await is_full(other, stated)
    taken.pop().end()
    await until_free(one, stated)
    taken.pop().end()
    await until_free(other, stated)
    for rest in taken:
        rest.end()
    await one.close()
    assert await is_full(other, of_all(concurrent=1)) is False


async def test_leases_are_renewed_while_others_never_stop_asking(redis_url: str, connect: Connect) -> None:
    """A busy router still has time to say that a request of another key runs."""
    busy, other, stated = connect(redis_url), connect(redis_url), of_all(concurrent=1)
    await busy.take("key_a", "m", stated)

    async def ask_on() -> None:
        while True:
            (await busy.take("key_b", "m", of_all(requests=10**6))).end()

    asking = [asyncio.create_task(ask_on()) for _ in range(4)]
    await asyncio.sleep(1.5 * LEASE_S)
    assert await is_full(other, stated)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_windows_move_on_and_leave_nothing(redis_url: str, connect: Connect) -> None:
    limits, stated = connect(redis_url, window_s=1.8), of_all(requests=2, tokens=100)
    taken = await limits.take("key_a", "m", stated, tokens=100)
    with pytest.raises(LimitReached) as caught:
        await limits.take("key_a", "m", stated, tokens=50)
    assert 0 < caught.value.retry_after_s <= 1.83
    taken.used(50)
    await limits.take("key_a", "m", stated, tokens=50)
    await until_free(limits, stated)
    await limits.close()
    with closing(redis.Redis.from_url(redis_url)) as client:
        async with asyncio.timeout(20):
            while client.keys():
                await asyncio.sleep(0.05)


DIE = """
import asyncio, os, signal, sys
from accounts.types import Limits
from router.accounts.limits import RateLimits
from router.accounts.redis_counter import RedisCounter

async def main(url: str, lease_s: float) -> None:
    counter = RedisCounter(url, lease_s=lease_s)
    for _ in range(5):
        await RateLimits(counter, counter).take("key_a", "m", {"*": Limits(concurrent=5)})
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(sys.argv[1], float(sys.argv[2])))
"""


async def test_a_router_that_is_killed_leaves_no_place_taken(redis_url: str, connect: Connect) -> None:
    lease_s = 3.0
    command = [sys.executable, "-c", DIE, redis_url, str(lease_s)]
    ended = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, timeout=60, check=False)
    assert ended.returncode == -9
    limits, stated = connect(redis_url, lease_s=lease_s), of_all(concurrent=5)
    assert await is_full(limits, stated)
    await until_free(limits, stated)
    five = [await limits.take("key_a", "m", stated) for _ in range(5)]
    for taken in five:
        taken.end()


async def test_a_redis_that_is_gone_lets_nothing_in_and_one_that_is_back_knows_what_runs(
    own_redis: Redis, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    limits, stated = connect(own_redis.url, lease_s=0.9), of_all(concurrent=2, requests=1000)
    first, second = [await limits.take("key_a", "m", stated) for _ in range(2)]
    own_redis.stop()
    first.end()
    for _ in range(3):
        with pytest.raises(AccountsUnavailable):
            await limits.take("key_b", "m", stated)
    own_redis.start()
    async with asyncio.timeout(20):
        while not await self_heals(limits, stated):
            await asyncio.sleep(0.02)
    second.end()
    said = [record.message for record in caplog.records]
    assert said == ["limits: Redis does not answer (ConnectionError)", "limits: Redis answers again"]


async def self_heals(limits: RateLimits, stated: dict[str, Limits]) -> bool:
    """Whether the one that still runs is counted, and no other: the server had forgotten both."""
    try:
        taken = await limits.take("key_a", "m", stated)
    except AccountsUnavailable:
        return False
    was_full = await is_full(limits, stated)
    taken.end()
    return was_full


async def test_a_redis_that_hangs_is_not_waited_for(redis_url: str, connect: Connect) -> None:
    """And what it does later, when nobody waits for it any more, is undone."""
    limits, other, stated = connect(redis_url, timeout_s=0.5), connect(redis_url), of_all(concurrent=1)
    await until_free(limits, stated)
    with closing(redis.Redis.from_url(redis_url)) as client:
        client.client_pause(60_000, all=False)  # who writes; else nothing could end it
        with pytest.raises(AccountsUnavailable):
            await limits.take("key_a", "m", stated)
        client.client_unpause()
    await until_free(other, stated)
    await until_free(limits, stated)


async def test_who_leaves_while_it_is_decided_takes_nothing(redis_url: str, connect: Connect) -> None:
    limits, stated = connect(redis_url, lease_s=60.0), of_all(concurrent=3, tokens=30)
    for turns in range(12):
        asking = asyncio.create_task(limits.take("key_a", "m", stated, tokens=10))
        for _ in range(turns):
            await asyncio.sleep(0.0003)
        asking.cancel()
        (result,) = await asyncio.gather(asking, return_exceptions=True)
        if isinstance(result, Taken):
            result.used(0)
            result.end()
        else:
            assert isinstance(result, asyncio.CancelledError)
    async with asyncio.timeout(20):
        while await is_full(limits, of_all(concurrent=1)):
            await asyncio.sleep(0.01)
    await limits.take("key_a", "m", stated, tokens=30)


async def test_what_is_decided_too_late_takes_nothing(redis_url: str) -> None:
    """However close it is."""
    counter = RedisCounter(redis_url, lease_s=60.0)
    limits, stated = RateLimits(counter, counter), of_all(concurrent=3)
    (await limits.take("key_a", "m", stated)).end()
    for attempt in range(200):
        counter._timeout_s = 0.0001 * (attempt % 20)
        with suppress(AccountsUnavailable, LimitReached):
            (await limits.take("key_a", "m", stated)).end()
    counter._timeout_s = 5.0
    await until_free(limits, of_all(concurrent=1))
    await limits.close()


async def test_a_password_is_in_no_message(
    own_redis: Redis, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    limits = connect(own_redis.url.replace("redis://", "redis://stranger:very-secret@"))
    with pytest.raises(AccountsUnavailable) as caught:
        await limits.take("key_a", "m", of_all(requests=1))
    assert "secret" not in f"{caught.value!r}{caught.value.__cause__!r}{caught.value.__context__!r}{caplog.text}"
    assert "AuthenticationError" in caplog.text


async def test_it_closes_although_redis_is_gone() -> None:
    limits = open_limits("redis://127.0.0.1:1/0")
    with pytest.raises(AccountsUnavailable):
        await limits.take("key_a", "m", of_all(requests=1))
    await limits.close()


@pytest.mark.parametrize("url", ["redis://:very/secret@127.0.0.1:6379/0", "http://:secret@127.0.0.1"])
def test_a_url_that_cannot_be_read_is_not_repeated(url: str) -> None:
    with pytest.raises(AccountsError) as caught:
        open_limits(url)
    assert "secret" not in f"{caught.value}{caught.value.__cause__}"
    assert caught.value.__suppress_context__
