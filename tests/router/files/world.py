"""A file store in a folder, with a clock that stands still, and clients that upload to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from router.app import create_app
from router.asgi.caller import Owner
from router.config import RouterConfig
from router.files.objects import Objects, open_objects
from router.files.store import FileStore
from router.files.upload import Upload
from tests.images import plain
from tests.router.world import FakeBackend

Json = dict[str, Any]

KEY = "sk-0123456789abcdefghijklmnop"
OTHER_KEY = "sk-zyxwvutsrqponmlkjihgfedcba"
KIM, ROBIN = Owner("kim", has_key=True), Owner("robin", has_key=True)
IMAGE = plain(8, 6)


class Clock:
    """The time, which passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """A store that several replicas share."""

    folder: Path
    clock: Clock = field(default_factory=Clock)

    def objects(self) -> Objects:
        return open_objects(str(self.folder))

    def store(self, objects: Objects | None = None, **settings: Any) -> FileStore:
        """A replica's view of it."""
        return FileStore(objects or self.objects(), RouterConfig.from_args(settings), self.clock)

    def below(self, folder: str) -> list[Path]:
        """The objects of a kind."""
        return sorted(path for path in (self.folder / folder).rglob("*") if path.is_file())

    def stored_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.below("content"))


def upload(content: bytes = IMAGE, filename: str = "cat.png", **fields: Any) -> Upload:
    return Upload(content, filename, **{"purpose": "vision", **fields})


@asynccontextmanager
async def serving(
    folder: Path | None, backend: FakeBackend | None = None, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A router with files in ``folder``, and a client with a key."""
    where = {} if folder is None else {"files_url": str(folder)}
    app = create_app(backend or FakeBackend(), RouterConfig.from_args({**where, **settings}))
    transport = httpx.ASGITransport(app)
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://router", headers=headers) as http:
        yield http


async def send(http: httpx.AsyncClient, content: bytes = IMAGE, name: str = "cat.png", **fields: str) -> httpx.Response:
    """Upload a file as OpenAI's clients do."""
    return await http.post("/v1/files", files={"file": (name, content)}, data={"purpose": "vision", **fields})


def as_other() -> dict[str, str]:
    """The headers of another caller."""
    return {"authorization": f"Bearer {OTHER_KEY}"}
