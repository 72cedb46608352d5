"""Two callers, two replicas of the router, a thousand uploads and as many requests; and one replica is killed.

Each caller sees its own files alone, what has been answered is never lost, and the store stays within its limits at
every moment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
from PIL import Image

from router.app import Router
from router.config import RouterConfig
from serve_args.cluster_environment import own
from tests.images import encoded
from tests.router.cluster import cluster
from tests.router.files.world import KEY, OTHER_KEY
from tests.router.world import CHAT, body, script, user, words
from vlm.types import Chunk, ModelInfo, Request

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),  # Ray's own warnings are not ours to fix
]

UPLOADS = 500
"""Of each caller."""
ROOM = 900
"""Files for which there is room: too few for all."""
AT_A_TIME = 8
APPLICATION = f"files-{os.getpid()}"


def image(caller: int, number: int) -> bytes:
    """An image of its own, of the same size as all others."""
    return encoded(Image.new("RGB", (8, 8), (caller, number >> 8, number & 255)), "BMP")


SIZE = len(image(0, 0))


class Model:
    """Answers with the digest of its image."""

    async def describe(self) -> ModelInfo:
        return ModelInfo("blip", "miniatures/blip-large", None, 1, "float32", "cpu")

    async def answer(self, request: Request) -> Chunk:
        return [chunk async for chunk in self.generate(request)][-1]

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        for chunk in script(words(sha256(request.image or b"").hexdigest())):
            yield chunk


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    with cluster() as port:
        from ray import serve

        model: Any = serve.deployment(name="Model", ray_actor_options={"num_cpus": 0})
        serve.run(model(Model).bind(), name="blip-large", route_prefix=None)
        config = RouterConfig(files_url=str(folder), max_file_store_bytes=ROOM * SIZE)
        router: Any = serve.deployment(
            name="Router", num_replicas=2, max_ongoing_requests=100, ray_actor_options={"num_cpus": 0}
        )
        serve.run(router(serve.ingress()(Router)).bind(config, own()), name=APPLICATION, route_prefix="/")
        yield f"http://127.0.0.1:{port}"


def replicas() -> list[int]:
    """Process ids of the router's replicas, whose name is that of this test run alone."""
    name = f"ray::ServeReplica:{APPLICATION}:Router".encode()
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if _begins(path, name)]


def _begins(path: Path, name: bytes) -> bool:
    try:
        return path.read_bytes().startswith(name)
    except OSError:  # it has just ended
        return False


@contextmanager
def watched(folder: Path) -> Iterator[list[int]]:
    """The bytes of all contents, over and over until the end of the block."""
    seen: list[int] = []
    done = Event()

    def watch() -> None:
        while not done.wait(0.2):
            seen.append(sum(_size(path) for path in (folder / "content").rglob("*")))

    thread = Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # it was not finished, or has been deleted
        return 0


@dataclass
class Caller:
    """One caller's view: what it has been told that it has."""

    number: int
    http: httpx.AsyncClient
    stored: dict[str, bytes] = field(default_factory=dict)
    refused: int = 0
    broken: int = 0

    async def upload(self, number: int) -> None:
        """Upload an image, and once more where the replica dies meanwhile."""
        data = image(self.number, number)
        for _ in range(10):
            files = {"file": (f"{number}.bmp", data)}
            answer = await self.http.post("/v1/files", files=files, data={"purpose": "vision"})
            if answer.status_code == 200:
                self.stored[answer.json()["id"]] = data
                return
            if answer.status_code == 507:
                self.refused += 1
                return
            self.broken += 1
            assert answer.status_code >= 500, answer.text
            await asyncio.sleep(0.5)

    async def ask(self, file_id: str) -> None:
        """Ask about a file, and once more where the replica dies meanwhile."""
        part = {"type": "file", "file": {"file_id": file_id}}
        for _ in range(10):
            answer = await self.http.post(CHAT, json=body(messages=[user(part)]))
            if answer.status_code == 200:
                content = answer.json()["choices"][0]["message"]["content"]
                assert content == sha256(self.stored[file_id]).hexdigest()
                return
            self.broken += 1
            assert answer.status_code >= 500, answer.text
            await asyncio.sleep(0.5)
        raise AssertionError("it was never answered")

    async def listed(self) -> set[str]:
        return {one["id"] for one in (await self.http.get("/v1/files")).json()["data"]}

    async def is_refused(self, file_id: str) -> None:
        """Another's file is not there."""
        assert (await self.http.get(f"/v1/files/{file_id}")).status_code == 404
        assert (await self.http.delete(f"/v1/files/{file_id}")).status_code == 404
        answer = await self.http.post(CHAT, json=body(messages=[user({"type": "file", "file": {"file_id": file_id}})]))
        assert answer.json()["error"]["code"] == "image_file_not_found"


async def each(works: Any) -> None:
    """Await all, so many at a time."""
    turns = asyncio.Semaphore(AT_A_TIME)

    async def in_turn(work: Any) -> None:
        async with turns:
            await work

    await asyncio.gather(*map(in_turn, works))


async def scenario(url: str) -> None:
    async with (
        httpx.AsyncClient(base_url=url, timeout=120, headers={"authorization": f"Bearer {KEY}"}) as first,
        httpx.AsyncClient(base_url=url, timeout=120, headers={"authorization": f"Bearer {OTHER_KEY}"}) as second,
    ):
        callers = Caller(0, first), Caller(1, second)
        at_work = replicas()
        assert len(at_work) == 2

        async def kill_one_half_way() -> None:
            while sum(len(one.stored) for one in callers) < UPLOADS:
                await asyncio.sleep(0.01)
            os.kill(at_work[0], signal.SIGKILL)

        began = time.perf_counter()
        killing = asyncio.create_task(kill_one_half_way())
        await each(one.upload(number) for number in range(UPLOADS) for one in callers)
        await killing
        uploaded = time.perf_counter()
        held = sum(len(one.stored) for one in callers)
        assert held + sum(one.refused for one in callers) == 2 * UPLOADS
        assert ROOM - 2 * AT_A_TIME <= held <= ROOM
        await each(one.ask(file_id) for one in callers for file_id in one.stored)
        asked = time.perf_counter()
        for one, other in (callers, callers[::-1]):
            assert one.stored.keys() <= await one.listed()  # a killed replica may have stored what it did not answer
            assert not await one.listed() & other.stored.keys()
            await each(map(one.is_refused, [*other.stored][::20]))
        for one in callers:
            await each(one.http.delete(f"/v1/files/{file_id}") for file_id in await one.listed())
        assert not await callers[0].listed() | await callers[1].listed()
        print(
            f"{held} of {2 * UPLOADS} uploads in {uploaded - began:.1f} s, asked in {asked - uploaded:.1f} s,", end=" "
        )
        print(f"{sum(one.broken for one in callers)} answers broken by the end of a replica")


def test_a_thousand_uploads_over_two_replicas_one_of_which_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    with serving(folder) as url, watched(folder) as seen:
        asyncio.run(scenario(url))
    assert len(seen) > 10
    assert (ROOM - 2 * AT_A_TIME) * SIZE <= max(seen) <= ROOM * SIZE
