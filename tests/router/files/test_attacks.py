"""What one caller can have the store do, and a store that is slow, damaged or not our own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.asgi.errors import FileQuotaExceeded, FilesUnavailable, NoSuchFile
from router.files import objects as objects_module
from router.files import store as store_module
from router.files import sweeper
from router.files.objects import Objects, open_objects
from router.files.store import PARALLEL
from tests.images import plain
from tests.router.files.world import IMAGE, KEY, KIM, ROBIN, World, as_other, send, serving, upload
from tests.router.world import CHAT, URL, FakeBackend, body, check_error, user
from vlm.errors import ConfigError

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "files")


class Counting(Objects):
    """Counts its reads: all of them, and those at the same time."""

    def __init__(self, real: Objects) -> None:
        super().__init__(real._store, real._folder)
        self.reads = self.now = self.most = 0

    async def read(self, path: str) -> bytes | None:
        self.reads += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        try:
            return await super().read(path)
        finally:
            self.now -= 1


# What it costs


async def test_a_refused_upload_reads_nothing(world: World) -> None:
    objects = Counting(world.objects())
    store = world.store(objects, max_files_per_caller=50)
    for _ in range(50):
        await store.add(KIM, upload())
    objects.reads = 0
    with pytest.raises(FileQuotaExceeded):
        await store.add(KIM, upload())
    assert objects.reads == 0
    assert len(world.below("files")) == 50


async def test_a_deletion_reads_few_of_many_that_are_alike(world: World) -> None:
    objects = Counting(world.objects())
    store = world.store(objects)
    stored = [await store.add(KIM, upload()) for _ in range(3 * PARALLEL)]
    objects.reads = 0
    await store.delete(KIM, str(stored[0].id))
    assert objects.reads <= PARALLEL + 2
    assert await store.read(KIM, str(stored[1].id), lambda _bytes: None) == IMAGE


async def test_many_lists_share_the_turns_at_the_store(world: World) -> None:
    objects = Counting(world.objects())
    store = world.store(objects)
    for _ in range(40):
        await store.add(KIM, upload())
    ids = await store.ids(KIM)
    found = await asyncio.gather(*(store.files(KIM, ids) for _ in range(20)))
    assert [[one.id for one in files] for files in found] == [ids] * 20
    assert objects.most == PARALLEL


async def test_many_lists_do_not_keep_others_from_a_file(world: World) -> None:
    """Who needs one object does not wait for those who need a thousand."""
    stuck, free = asyncio.Event(), asyncio.Event()

    class Stuck(Objects):
        async def read(self, path: str) -> bytes | None:
            if path.startswith(f"files/{scope}/"):
                stuck.set()
                await free.wait()
            return await super().read(path)

    stored = [await world.store().add(KIM, upload()) for _ in range(PARALLEL)]
    scope = world.below("files")[0].parent.name
    other = await world.store().add(ROBIN, upload())
    real = world.objects()
    store = world.store(Stuck(real._store, real._folder))
    listing = asyncio.create_task(store.files(KIM, [one.id for one in stored]))
    await stuck.wait()
    assert await store.read(ROBIN, str(other.id), lambda _bytes: None) == IMAGE
    free.set()
    assert len(await listing) == PARALLEL


# A store that is slow, damaged or not our own


@pytest.fixture
def pipe(world: World) -> Iterator[Path]:
    """An object that never comes, as of a folder on a machine that does not answer."""
    world.objects()
    os.mkfifo(path := world.folder / "key")
    yield path
    os.close(os.open(path, os.O_RDWR))  # lets the thread that waits for it go on


async def test_a_folder_that_does_not_answer_is_given_up(
    world: World, pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_module, "TIMEOUT_S", 0.2)
    with pytest.raises(FilesUnavailable):
        await world.objects().read(pipe.name)


async def test_a_request_ends_at_its_deadline_whatever_the_store_does(world: World, pipe: Path) -> None:
    async with serving(pipe.parent, request_timeout_s=0.05) as http:
        for answer in (await send(http), await http.get("/v1/files"), await http.delete("/v1/files/file-1")):
            check_error(answer, 504, "timeout", None)


async def test_one_damaged_object_spoils_nothing_else(world: World) -> None:
    store = world.store(max_files_per_caller=3)
    stored = [await store.add(KIM, upload(plain(8, side))) for side in (8, 9, 10)]
    for data in (b"{", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"filename": "a.png"}'):
        next(path for path in world.below("files") if path.name == str(stored[0].id)).write_bytes(data)
        assert len(await store.files(KIM, await store.ids(KIM))) == 2
        with pytest.raises(NoSuchFile):
            await store.file(KIM, str(stored[0].id))
        await store.delete(KIM, str(stored[2].id))
        stored[2] = await store.add(KIM, upload(plain(8, 8)))  # like the damaged one
        await store.sweep()
    world.clock.now += 366 * 86_400
    await store.sweep()
    assert world.below("files") == world.below("content") == []


async def test_the_sweeper_goes_on_after_a_failure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leftovers in a folder that cannot be written must not end it, since nobody would notice."""
    tried = 0
    often = asyncio.Event()

    def refused(*_args: object) -> None:
        nonlocal tried
        if (tried := tried + 1) == 3:
            often.set()
        raise PermissionError

    monkeypatch.setattr(objects_module, "_remove_leftovers", refused)
    monkeypatch.setattr(sweeper, "SWEEP_S", 0.001)
    async with sweeper.sweeping(world.store()):
        await asyncio.wait_for(often.wait(), 30)


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder := tmp_path / "files").mkdir(mode=0o700)
    owner = folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:  # the operator's, whoever the router runs as
        open_objects(str(folder))
        os.chown(folder, 4711, -1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        open_objects(str(folder))


# What a request says of its own


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(tmp_path / "files") as found:
        yield found


def naming(file_id: object) -> dict[str, Any]:
    return body(messages=[user({"type": "file", "file": {"file_id": file_id}})])


@pytest.mark.parametrize("file_id", [URL, "http://127.0.0.1/", "../key", "key", "", "file-" + "é" * 48, "a" * 9999])
async def test_a_file_is_nothing_but_a_file(http: httpx.AsyncClient, file_id: str) -> None:
    answer = await http.post(CHAT, json=naming(file_id))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("messages[0].content[0].file")


@pytest.mark.parametrize("origin", ["null", "https://evil.example", "http://router.evil.example"])
async def test_a_page_of_another_site_uploads_nothing(http: httpx.AsyncClient, origin: str) -> None:
    """Browsers send a form to any address without asking."""
    http.headers["origin"] = origin
    check_error(await send(http), 403, "origin_not_allowed", None)
    del http.headers["origin"]
    assert (await http.get("/v1/files")).json()["data"] == []


async def test_what_another_sends_beside_its_key_opens_nothing(http: httpx.AsyncClient) -> None:
    """The key of Authorization counts, which a gateway may have checked, and no other header."""
    file = (await send(http)).json()
    for headers in (
        {**as_other(), "x-moondream-auth": KEY},
        {**as_other(), "x-api-key": KEY, "cookie": f"key={KEY}", "openai-organization": KEY},
        {"authorization": f"Bearer {KEY.upper()}"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY} x"},
        {"authorization": f'Bearer "{KEY}"'},
    ):
        answer = await http.get(f"/v1/files/{file['id']}", headers=headers)
        check_error(answer, 404, "file_not_found", "id")


async def test_a_file_that_is_not_an_image_any_more_is_refused(tmp_path: Path) -> None:
    """Limits that an operator has made smaller hold for files that were there before."""
    backend = FakeBackend()
    async with serving(tmp_path / "files") as http:
        file = (await send(http, plain(100, 100))).json()
    async with serving(tmp_path / "files", backend, max_image_pixels=9_999) as http:
        check_error(
            await http.post(CHAT, json=naming(file["id"])),
            400, "image_too_large", "messages[0].content[0].file.file_id",
        )  # fmt: skip
    assert not backend.asked


def test_digests_tell_nothing_to_who_does_not_have_the_key() -> None:
    """Ids are not secrets: nobody may learn from one whose file it is, or whether it has a content that they know."""
    assert store_module._digest(b"a" * 32, "scope", IMAGE) != store_module._digest(b"b" * 32, "scope", IMAGE)


async def test_contents_count_among_the_bytes_of_all_requests(tmp_path: Path) -> None:
    image = plain(300, 300)
    async with serving(tmp_path / "files") as http:
        file = (await send(http, image)).json()
    async with serving(tmp_path / "files", max_total_body_bytes=len(image) - 1) as http:
        check_error(await http.get(f"/v1/files/{file['id']}/content"), 503, "overloaded", None)
        check_error(await http.post(CHAT, json=naming(file["id"])), 503, "overloaded", None)
        assert (await http.get(f"/v1/files/{file['id']}")).status_code == 200
