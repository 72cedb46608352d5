"""The store: whose files are whose, what they may take, and what is left when something goes wrong in between."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from router.asgi.caller import Owner
from router.asgi.errors import FileQuotaExceeded, FileStoreFull, FilesUnavailable, KeyRequired, NoSuchFile
from router.files import store as store_module
from router.files.objects import Entry, Objects, open_objects
from router.files.store import LEFT_BEHIND_S, FileStore
from tests.images import plain
from tests.router.files.world import IMAGE, KIM, ROBIN, World, upload
from vlm.errors import ConfigError, Overloaded

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "files")


def held(_bytes: int) -> None:
    """Room for all."""


async def names(store: FileStore, owner: Owner = KIM) -> list[str]:
    return [one.filename for one in await store.files(owner, await store.ids(owner))]


async def read(store: FileStore, file_id: object, owner: Owner = KIM) -> bytes:
    return await store.read(owner, str(file_id), held)


async def gone(store: FileStore, file_id: object, owner: Owner = KIM) -> bool:
    try:
        await read(store, file_id, owner)
    except NoSuchFile:
        return True
    return False


# Whose


async def test_every_replica_has_what_one_has_got(world: World) -> None:
    stored = await world.store().add(KIM, upload())
    other = world.store()
    assert await read(other, stored.id) == IMAGE
    assert (await other.file(KIM, str(stored.id))).filename == "cat.png"
    assert await names(other) == ["cat.png"]
    await other.delete(KIM, str(stored.id))
    assert await gone(world.store(), stored.id)


async def test_another_owner_sees_nothing(world: World) -> None:
    store = world.store()
    stored = await store.add(KIM, upload())
    assert await store.ids(ROBIN) == []
    assert await store.files(ROBIN, [stored.id]) == []
    for attempt in (
        store.file(ROBIN, str(stored.id)),
        store.delete(ROBIN, str(stored.id)),
        read(store, stored.id, ROBIN),
    ):
        with pytest.raises(NoSuchFile):
            await attempt
    assert await read(store, stored.id) == IMAGE


async def test_another_owner_does_not_learn_that_a_content_is_there(world: World) -> None:
    """Neither by the ids, nor by what is stored or counted."""
    store = world.store(max_file_store_bytes=2 * len(IMAGE))
    first, second = await store.add(KIM, upload()), await store.add(ROBIN, upload())
    assert first.id.digest != second.id.digest
    assert world.stored_bytes() == 2 * len(IMAGE)


async def test_who_has_no_key_has_no_files_unless_that_is_allowed(world: World) -> None:
    nameless = Owner("192.0.2.1", has_key=False)
    for owner in (nameless, None):
        with pytest.raises(KeyRequired):
            await world.store().add(owner, upload())
    allowing = world.store(files_without_key=True)
    stored = await allowing.add(nameless, upload())
    assert await read(allowing, stored.id, nameless) == IMAGE


async def test_names_in_the_store_tell_of_nobody(world: World) -> None:
    await world.store().add(Owner("the-name-of-a-key", has_key=True), upload(filename="secret.png"))
    [path] = world.below("files")
    assert "the-name" not in str(path)
    assert "secret" not in str(path)
    other = World(world.folder.parent / "another")
    await other.store().add(Owner("the-name-of-a-key", has_key=True), upload())
    assert other.below("files")[0].parent.name != path.parent.name  # another store, another key


async def test_replicas_that_start_together_agree_on_the_key(world: World) -> None:
    stores = [world.store() for _ in range(8)]
    stored = await asyncio.gather(*(store.add(KIM, upload()) for store in stores))
    assert len({one.id.digest for one in stored}) == 1
    assert len(await stores[0].ids(KIM)) == 8


# Equal contents


async def test_equal_contents_are_stored_once(world: World) -> None:
    store = world.store()
    stored = [await store.add(KIM, upload(filename=name)) for name in ("a.png", "b.png", "c.png")]
    assert len({str(one.id) for one in stored}) == 3
    assert sorted(await names(store)) == ["a.png", "b.png", "c.png"]
    assert world.stored_bytes() == len(IMAGE)
    for one in stored[:2]:
        await store.delete(KIM, str(one.id))
        assert await read(store, stored[2].id) == IMAGE
    await store.delete(KIM, str(stored[2].id))
    assert world.below("content") == world.below("files") == []


async def test_equal_contents_that_came_at_the_same_time_are_not_kept_longer_than_their_files(world: World) -> None:
    first, second = await asyncio.gather(world.store().add(KIM, upload()), world.store().add(KIM, upload()))
    await world.store().delete(KIM, str(first.id))
    assert world.stored_bytes() == len(IMAGE)
    assert await read(world.store(), second.id) == IMAGE


async def test_equal_contents_at_the_same_time(world: World) -> None:
    stores = [world.store() for _ in range(3)]
    stored = await asyncio.gather(*(stores[at % 3].add(KIM, upload()) for at in range(30)))
    await asyncio.gather(*(stores[at % 3].delete(KIM, str(one.id)) for at, one in enumerate(stored[1:])))
    assert await read(stores[0], stored[0].id) == IMAGE
    await stores[1].delete(KIM, str(stored[0].id))
    await left_behind(world)
    assert world.below("content") == world.below("files") == []


async def test_uploads_and_deletions_of_one_content_at_the_same_time(world: World) -> None:
    """Whatever comes first: a file that is there can be read."""
    stores = [world.store(), world.store()]

    async def come_and_go(at: int) -> None:
        store = stores[at % 2]
        for _ in range(5):
            stored = await store.add(KIM, upload())
            assert await read(stores[(at + 1) % 2], stored.id) == IMAGE
            await store.delete(KIM, str(stored.id))

    await asyncio.gather(*map(come_and_go, range(8)))
    await left_behind(world)
    assert world.below("content") == world.below("files") == []


async def left_behind(world: World) -> None:
    """An hour passes, and what was left behind is swept."""
    world.clock.now += 2 * LEFT_BEHIND_S
    await world.store().sweep()


# Limits


async def test_a_caller_has_so_many_files(world: World) -> None:
    store = world.store(max_files_per_caller=2)
    first, _ = await store.add(KIM, upload()), await store.add(KIM, upload(plain(9, 9)))
    with pytest.raises(FileQuotaExceeded, match="Delete some"):
        await store.add(KIM, upload())
    await store.add(ROBIN, upload())
    assert len(world.below("files")) == 3
    await store.delete(KIM, str(first.id))
    await store.add(KIM, upload())


async def test_a_caller_has_so_many_bytes_and_equal_files_count(world: World) -> None:
    store = world.store(max_file_bytes_per_caller=2 * len(IMAGE))
    await store.add(KIM, upload())
    await store.add(KIM, upload())
    with pytest.raises(FileQuotaExceeded):
        await store.add(KIM, upload())


@pytest.mark.parametrize("limits", [{"max_files": 3}, {"max_file_store_bytes": 3 * len(IMAGE) + 1}])
async def test_all_together_have_so_many(world: World, limits: Any) -> None:
    store = world.store(**limits)
    for owner in (KIM, ROBIN, KIM):
        await store.add(owner, upload())
    with pytest.raises(FileStoreFull, match="no room"):
        await store.add(Owner("sam", has_key=True), upload())
    assert (len(world.below("files")), world.stored_bytes()) == (3, 2 * len(IMAGE))


async def test_the_limit_holds_whatever_replicas_do_at_the_same_time(world: World) -> None:
    """As many are let in as fit: those that come first, and no more."""
    stores = [world.store(max_file_store_bytes=5 * len(IMAGE)) for _ in range(4)]
    owners = [Owner(f"owner {at}", has_key=True) for at in range(24)]
    results = await asyncio.gather(
        *(stores[at % 4].add(owner, upload()) for at, owner in enumerate(owners)), return_exceptions=True
    )
    assert {type(one) for one in results if isinstance(one, Exception)} == {FileStoreFull}
    assert sum(not isinstance(one, BaseException) for one in results) == 5
    assert world.stored_bytes() == 5 * len(IMAGE)
    assert [path for path in world.below("files") if path.stat().st_size == 0] == []


async def test_a_place_that_is_never_used_is_not_waited_for_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PAUSES_S", (0.0, 0.0))
    world.clock.now += 1  # the later id gives way, if its process still runs
    objects = Failing(world.objects(), "content/")
    stopped = asyncio.create_task(world.store(objects).add(KIM, upload()))
    await objects.reached.wait()
    world.clock.now -= 1
    with pytest.raises(FileStoreFull):
        await world.store(max_files=1).add(ROBIN, upload())
    stopped.cancel()
    await asyncio.gather(stopped, return_exceptions=True)


async def test_what_has_expired_makes_room(world: World) -> None:
    store = world.store(max_files=2)
    await store.add(KIM, upload(ttl_s=60))
    await store.add(ROBIN, upload(ttl_s=60))
    world.clock.now += 60
    await store.add(KIM, upload(filename="new.png"))
    assert await names(store) == ["new.png"]
    assert (len(world.below("files")), len(world.below("content"))) == (1, 1)


# Time


async def test_files_expire(world: World) -> None:
    store = world.store(file_ttl_s=120)
    default, sooner = await store.add(KIM, upload()), await store.add(KIM, upload(ttl_s=60))
    assert (default.id.expires_s, sooner.id.expires_s) == (world.clock.now + 120, world.clock.now + 60)
    world.clock.now += 59.9
    assert await store.ids(KIM) == [default.id, sooner.id] or await store.ids(KIM) == [sooner.id, default.id]
    world.clock.now += 0.1
    assert await store.ids(KIM) == [default.id]
    assert await gone(store, sooner.id)
    with pytest.raises(NoSuchFile):
        await store.delete(KIM, str(sooner.id))
    assert len(world.below("files")) == 2
    await store.sweep()
    assert (len(world.below("files")), len(world.below("content"))) == (1, 1)
    assert await read(store, default.id) == IMAGE  # the content is that of both
    world.clock.now += 60
    await world.store().sweep()
    assert world.below("files") == world.below("content") == []


# What is left when something goes wrong in between


class Failing(Objects):
    """Stops for ever, or fails, before it writes an object whose path begins with ``at`` for the ``turn``-th time."""

    def __init__(self, real: Objects, at: str, turn: int = 1, *, stops: bool = True) -> None:
        super().__init__(real._store, real._folder)
        self._at = at
        self._turn = turn
        self._stops = stops
        self.reached = asyncio.Event()

    async def write(self, path: str, data: bytes) -> None:
        await self._here(path)
        await super().write(path, data)

    async def delete(self, path: str) -> None:
        await self._here(path)
        await super().delete(path)

    async def entries(self, folder: str) -> AsyncIterator[Entry]:
        await self._here(f"list {folder}")
        async for entry in super().entries(folder):
            yield entry

    async def _here(self, path: str) -> None:
        self._turn -= path.startswith(self._at)
        if self._turn == 0:
            self._turn = 1
            self.reached.set()
            if self._stops:
                await asyncio.sleep(3600)
            raise FilesUnavailable("No.")


@pytest.mark.parametrize("at", ["list files", "content/", "files/"])
async def test_a_process_that_is_killed_during_an_upload(world: World, at: str) -> None:
    objects = Failing(world.objects(), at)
    upload_of_it = asyncio.create_task(world.store(objects).add(KIM, upload()))
    await objects.reached.wait()
    other = world.store(max_files=1)
    assert await other.ids(KIM) == []
    assert await gone(other, world.below("files")[0].name)
    with pytest.raises(FileStoreFull):  # its place is taken as long as it might still come
        await other.add(ROBIN, upload())
    await other.sweep()
    assert len(world.below("files")) >= 1
    await left_behind(world)
    assert world.below("files") == world.below("content") == []
    await other.add(ROBIN, upload())
    upload_of_it.cancel()
    await asyncio.gather(upload_of_it, return_exceptions=True)


@pytest.mark.parametrize("at", ["list files", "content/"])
async def test_a_process_that_is_killed_during_a_deletion(world: World, at: str) -> None:
    stored = await world.store().add(KIM, upload())
    objects = Failing(world.objects(), at)
    deletion = asyncio.create_task(world.store(objects).delete(KIM, str(stored.id)))
    await objects.reached.wait()
    other = world.store()
    assert await gone(other, stored.id)
    again = await other.add(KIM, upload())
    await left_behind(world)
    assert await read(world.store(), again.id) == IMAGE
    assert world.stored_bytes() == len(IMAGE)
    deletion.cancel()
    await asyncio.gather(deletion, return_exceptions=True)


@pytest.mark.parametrize("at", ["list files", "content/", "files/"])
async def test_an_upload_that_fails_leaves_nothing(world: World, at: str) -> None:
    objects = Failing(world.objects(), at, stops=False)
    store = world.store(objects)
    with pytest.raises(FilesUnavailable):
        await store.add(KIM, upload())
    await left_behind(world)
    assert world.below("files") == world.below("content") == []


@pytest.mark.parametrize("at", ["list files", "content/", "files/"])
async def test_a_client_that_leaves_takes_its_place_along(world: World, at: str) -> None:
    objects = Failing(world.objects(), at)
    store = world.store(objects)
    leaving = asyncio.create_task(store.add(KIM, upload()))
    await objects.reached.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    objects._turn = 100
    await store.settled()
    assert world.below("files") == world.below("content") == []


async def test_an_equal_file_that_is_deleted_during_an_upload(world: World) -> None:
    """The newcomer refers to its content, or brings its own; either way it is there."""
    first = await world.store().add(KIM, upload())
    objects = Failing(world.objects(), "files/")
    arriving = asyncio.create_task(world.store(objects).add(KIM, upload()))
    await objects.reached.wait()  # it has decided to refer to the content of the first
    other = world.store()
    await other.delete(KIM, str(first.id))
    assert world.stored_bytes() == len(IMAGE)
    arriving.cancel()
    await asyncio.gather(arriving, return_exceptions=True)


async def test_a_file_that_is_deleted_while_it_is_read(world: World) -> None:
    stored = await world.store().add(KIM, upload())

    def deleted_now(_bytes: int) -> None:
        for path in world.below("content"):
            path.unlink()

    with pytest.raises(NoSuchFile):
        await world.store().read(KIM, str(stored.id), deleted_now)


async def test_a_content_that_is_damaged_is_not_used(world: World) -> None:
    stored = await world.store().add(KIM, upload())
    world.below("content")[0].write_bytes(IMAGE[:-1])
    assert await gone(world.store(), stored.id)


async def test_there_must_be_room_before_a_file_is_read(world: World) -> None:
    stored = await world.store().add(KIM, upload())
    asked = []

    def full(number: int) -> None:
        asked.append(number)
        raise Overloaded("no room")

    with pytest.raises(Overloaded):
        await world.store().read(KIM, str(stored.id), full)
    assert asked == [len(IMAGE)]


async def test_half_written_objects_are_swept(world: World) -> None:
    store = world.store()
    stored = await store.add(KIM, upload())
    [content] = world.below("content")
    for name, age in (("x#1", LEFT_BEHIND_S + 60), ("y#2", 60)):
        path = content.with_name(name)
        path.write_bytes(b"half")
        os.utime(path, (world.clock.now - age,) * 2)
    await store.sweep()
    assert [path.name for path in world.below("content")] == [content.name, "y#2"]
    assert await read(store, stored.id) == IMAGE


async def test_foreign_objects_do_no_harm(world: World) -> None:
    store = world.store()
    await store.add(KIM, upload())
    scope = world.below("files")[0].parent
    (scope / "readme.txt").write_text("hello")
    (scope / "folder").mkdir()
    (scope / "folder" / "deep").write_text("hello")
    assert await names(store) == ["cat.png"]
    await store.sweep()


async def test_a_store_whose_key_is_damaged(world: World) -> None:
    await world.store().add(KIM, upload())
    (world.folder / "key").write_bytes(b"short")
    with pytest.raises(FilesUnavailable):
        await world.store().ids(KIM)


# The folder


def test_the_folder_is_private(tmp_path: Path) -> None:
    open_objects(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        open_objects(str(tmp_path / "open"))


def test_a_folder_of_make_serve_is_nowhere_else() -> None:
    with pytest.raises(ConfigError, match="all nodes share"):
        open_objects("temporary")


def test_a_folder_that_cannot_be_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="files_url"):
        open_objects(str(tmp_path / "file" / "below"))


async def test_what_fails_in_the_store_is_one_error_without_its_words(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    objects = world.objects()
    (world.folder / "files").write_text("not a folder")
    with pytest.raises(FilesUnavailable) as caught:
        await objects.create("files/a", b"")
    assert str(world.folder) not in caught.value.message
    assert "the file store failed" in caplog.text


async def test_objects(world: World) -> None:
    objects = world.objects()
    assert [one async for one in objects.entries("a")] == []
    assert await objects.read("a/b") is None
    await objects.delete("a/b")
    assert await objects.create("a/b", b"1")
    assert not await objects.create("a/b", b"2")
    assert await objects.read("a/b") == b"1"
    await objects.write("a/b", b"33")
    assert [one async for one in objects.entries("a")] == [Entry("a/b", 2)]
    await objects.delete("a/b")
    assert json.dumps([path.name for path in world.folder.iterdir()]) == "[]"  # its folder is gone, too
