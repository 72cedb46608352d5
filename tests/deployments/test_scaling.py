"""The policy on a real cluster: replicas follow the load, from zero and back, and no request notices."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import httpx
import pytest

from benchmarks.autoscale.__main__ import MODEL, TITLE, running, scaling_of, watch
from benchmarks.autoscale.day import Day
from benchmarks.autoscale.model import REPLICA, Sleep
from benchmarks.autoscale.report import is_good, table
from tests.deployments.system import System
from tests.images import data_url, scenes

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="looks its processes up in /proc"),
]

SLEEP = Sleep(slots=4, waiting=1000, service_s=0.5, start_s=0.5)
PATIENCE_S = 200.0
DEADLINE_S = 180.0
HELD = 100
QUIET_S = 4.0
ROUTER = {"request_timeout_s": DEADLINE_S, "max_queue_s": DEADLINE_S, "max_held": HELD, "cold_start_s": 1.0}
"""Nothing is refused or late because this machine is slow: the process of a replica may take half a minute to start."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running(tmp_path_factory.mktemp("scaling"), SLEEP, scaling_of(3, QUIET_S), ROUTER) as system:
        yield system


def body(*, stream: bool = False) -> dict[str, object]:
    content = [{"type": "image_url", "image_url": {"url": data_url(scenes(1)[0])}}]
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], "stream": stream}


def client_of(system: System) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)  # by default as many as there are in the herd
    return httpx.AsyncClient(base_url=system.url, timeout=PATIENCE_S, trust_env=False, limits=limits)


async def ask(http: httpx.AsyncClient, *, stream: bool = False) -> httpx.Response:
    return await http.post("/v1/chat/completions", json=body(stream=stream))


async def asked(http: httpx.AsyncClient, count: int) -> Sequence[httpx.Response]:
    """So many at once, half of them streamed."""
    return await asyncio.gather(*(ask(http, stream=bool(number % 2)) for number in range(count)))


def replica_of(answer: httpx.Response) -> str:
    return answer.text.partition(REPLICA)[2].partition('"')[0]


def is_whole(answer: httpx.Response) -> bool:
    cut = "text/event-stream" in answer.headers["content-type"] and not answer.text.rstrip().endswith("[DONE]")
    return answer.status_code == 200 and not cut and '"error"' not in answer.text


async def eventually(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.2)


def status(system: System) -> dict[str, object]:
    answer = httpx.get(f"{system.url}/readyz", timeout=60)
    assert answer.status_code == 200  # a model at zero is no reason to send requests elsewhere
    [found] = answer.json()["models"]
    return dict(found)


def none_left(system: System) -> bool:
    return not system.processes(TITLE)


def test_a_herd_starts_one_replica_and_what_is_not_held_is_told_when_to_come(system: System) -> None:
    async def herd() -> None:
        await eventually(lambda: none_left(system), "it begins with no replica")
        assert status(system)["detail"] == "at zero (a request starts it)"
        seen = []
        async with client_of(system) as http:
            answers = asyncio.create_task(asked(http, HELD + 10))
            while not answers.done():
                seen.append(len(await asyncio.to_thread(system.processes, TITLE)))
                await asyncio.sleep(0.2)
            assert next(filter(None, seen)) == 1
            refused = [one for one in answers.result() if one.status_code == 503]
            assert len(refused) == 10
            assert all(1 <= int(one.headers["retry-after"]) <= 60 for one in refused)
            assert {one.json()["error"]["code"] for one in refused} == {"model_not_ready"}
            held = [one for one in answers.result() if one.status_code != 503]
            assert all(map(is_whole, held)), [one.text for one in held]
            assert len(set(map(replica_of, held))) == 1
            assert status(system) == {"name": MODEL, "ready": True, "detail": "running"}

    asyncio.run(herd())


def test_a_replica_that_is_given_up_finishes_what_it_has(system: System) -> None:
    """Two replicas have a few requests each, so few that one would do."""

    async def load() -> None:
        answers: list[httpx.Response] = []
        async with client_of(system) as http:

            async def client(over: asyncio.Event, stream: bool) -> None:
                while not over.is_set():
                    answers.append(await ask(http, stream=stream))

            async def clients(count: int, holds: Callable[[], bool], what: str) -> None:
                """So many that ask one question after the other, until it ``holds``."""
                over = asyncio.Event()
                async with asyncio.TaskGroup() as group:
                    for number in range(count):
                        group.create_task(client(over, bool(number % 2)))
                    await eventually(holds, what)
                    over.set()

            await clients(16, lambda: len(set(map(replica_of, answers[-30:]))) > 1, "a second one answers")
            most = len(system.processes(TITLE))
            await clients(3, lambda: len(system.processes(TITLE)) < most, "one is given up")
        assert all(map(is_whole, answers)), [one.text for one in answers if not is_whole(one)]

    asyncio.run(load())


@pytest.mark.nodes
def test_replicas_follow_a_day_and_no_request_is_lost(system: System) -> None:
    async def day() -> None:
        await eventually(lambda: none_left(system), "back to zero")
        record = await watch(system, Day(45.0, 12.0), PATIENCE_S, DEADLINE_S)
        assert is_good(record), "\n".join(table(record, SLEEP.rate))
        assert record.figures()["most_replicas"] >= 2

    asyncio.run(day())
