"""Files of all owners, each of which sees only its own, in a store that every replica of the router shares.

The store has one object of what is known of each file, and one of each content::

    key                     32 random bytes: scopes and digests follow from them
    files/SCOPE/ID          {"filename", "content"}; empty while the upload runs
    content/SCOPE/ID        the bytes; ID is that of the file that brought them, equal ones later on refer to it

A scope is the owner's name under the key, so that no name in the store tells of a credential or an address. Replicas
share nothing but the store, which only has to write an object as a whole, to create it only if there is none, and to
list what was written before. These orders make that enough:

* An upload takes its place (an empty object) before it lists all files to see whether there is room for them, those
  whose uploads run included. Of two at the same time, at least one sees both. So the limits are never exceeded, and an
  upload that is refused has written nothing but its place.
* A file is made unusable before its content is removed, and the content is removed only if a list made after that has
  no other file with it. An upload refers to another's content only if a list made after it took its place has that
  other. So one of the two sees the other.
* What a process leaves behind that is killed in between is removed by the next :meth:`FileStore.sweep`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeVar

from router.asgi.caller import Owner
from router.asgi.errors import FilesUnavailable, KeyRequired, NoSuchFile
from router.asgi.threads import in_thread_if_large
from router.config import RouterConfig
from router.files.file_id import DIGEST_BYTES, FileId
from router.files.latest import Latest
from router.files.objects import Objects
from router.files.quota import Likeness, Listed, fault_of
from router.files.upload import Upload
from vlm.errors import VlmError

logger = logging.getLogger(__name__)

S = TypeVar("S")
T = TypeVar("T")

KEY = "key"
KEY_BYTES = 32
LEFT_BEHIND_S = 3600
"""Age from which a place without a file, or a content without one, was left behind: no request takes as long."""
PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""For which an upload waits, one after the other, where others that run may turn out not to fit."""
PARALLEL = 32
"""Calls of the store at a time for all lists and removals of one process, each of which may need a thousand: they must
not take all connections and threads from requests that need one or two."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as its owner sees it."""

    id: FileId
    filename: str


class FileStore:
    """The files in ``objects`` within the limits of ``config``; ``now`` is the time in seconds since 1970."""

    def __init__(self, objects: Objects, config: RouterConfig, now: Callable[[], float] = time.time) -> None:
        self._objects = objects
        self._config = config
        self._now = now
        self._list_all = Latest(lambda: _all_of(self._list("files")))
        self._key = b""
        self._turns = asyncio.Semaphore(PARALLEL)
        self._background: set[asyncio.Task[None]] = set()

    async def add(self, owner: Owner | None, upload: Upload) -> StoredFile:
        """Store a file; its image has been checked.

        Raises:
            KeyRequired, FileQuotaExceeded, FileStoreFull, FilesUnavailable
        """
        scope = await self._scope(owner)
        mine = await self._take_place(scope, upload)
        try:
            listed = await self._with_room(mine)
        except VlmError:
            await _quietly(self._objects.delete(mine.path))  # before the answer, so that its place is free again
            raise
        except BaseException:  # a client that leaves does not wait
            self._start(_quietly(self._objects.delete(mine.path)))
            raise
        return await self._add_to_place(mine, listed, upload)

    async def _add_to_place(self, mine: Listed, listed: Sequence[Listed], upload: Upload) -> StoredFile:
        try:
            content = await self._content_of_equal(mine, listed)
            if content is None:
                content = str(mine.id)
                await self._objects.write(f"content/{mine.scope}/{content}", upload.content)
            known = json.dumps({"filename": upload.filename, "content": content})
            await self._objects.write(mine.path, known.encode())
        except VlmError:
            await _quietly(self._remove([mine]))
            raise
        except BaseException:
            self._start(_quietly(self._remove([mine])))
            raise
        return StoredFile(mine.id, upload.filename)

    async def ids(self, owner: Owner | None) -> list[FileId]:
        """The ids of the owner's files, oldest first."""
        listed = await _all_of(self._list(f"files/{await self._scope(owner)}"))
        return sorted((one.id for one in listed if one.ready and not self._has_expired(one.id)), key=str)

    async def files(self, owner: Owner | None, ids: Iterable[FileId]) -> list[StoredFile]:
        """The owner's files of these ids, in order, without those that have been deleted meanwhile."""
        scope = await self._scope(owner)
        known = await self._in_parallel(self._known, [Listed(scope, one, ready=True) for one in ids])
        return [StoredFile(one.id, known_of["filename"]) for one, known_of in known if known_of]

    async def file(self, owner: Owner | None, text: str) -> StoredFile:
        """The owner's file of an id.

        Raises:
            NoSuchFile: There is none, or it is another's.
        """
        one, known = await self._find(owner, text)
        return StoredFile(one.id, known["filename"])

    async def read(self, owner: Owner | None, text: str, hold: Callable[[int], None]) -> bytes:
        """The bytes of the owner's file of an id; ``hold`` counts them before they are there.

        Raises:
            NoSuchFile: There is none, or it is another's.
        """
        one, known = await self._find(owner, text)
        hold(one.id.size)
        data = await self._objects.read(f"content/{one.scope}/{known['content']}")
        if data is None or len(data) != one.id.size:  # deleted just now, or damaged
            raise _missing()
        return data

    async def delete(self, owner: Owner | None, text: str) -> None:
        """Delete the owner's file of an id; no request that begins later can use it, whichever replica it reaches.

        Raises:
            NoSuchFile: There is none, or it is another's.
        """
        one, _ = await self._find(owner, text)
        await self._remove([one])

    async def sweep(self) -> None:
        """Remove what has expired, and what killed processes have left behind."""
        contents = await _all_of(self._list("content"))
        listed = await self._list_all()
        gone = [one for one in listed if self._has_expired(one.id) or (not one.ready and self._is_left_behind(one))]
        await self._remove(gone)
        own = {(one.scope, one.id) for one in listed}  # most contents have their own file, and need no second look
        old = [one for one in contents if (one.scope, one.id) not in own and self._is_left_behind(one)]
        await self._remove_unused({f"content/{one.scope}/{one.id}": one.likeness for one in old}, listed)
        await self._objects.remove_leftovers(self._now() - LEFT_BEHIND_S)

    async def settled(self) -> None:
        """Wait until what cancelled uploads have left is removed."""
        while self._background:
            await asyncio.wait(self._background)

    # Whose

    async def _scope(self, owner: Owner | None) -> str:
        if owner is None or not (owner.has_key or self._config.files_without_key):
            raise KeyRequired(
                "Files belong to an API key, which tells you apart from others: send one that has at least 24 "
                "characters as Authorization: Bearer."
            )
        key = self._key or await self._load_key()
        return blake2b(owner.name.encode(), key=key, digest_size=16, person=b"scope").hexdigest()

    async def _load_key(self) -> bytes:
        if (key := await self._objects.read(KEY)) is None:
            await self._objects.create(KEY, secrets.token_bytes(KEY_BYTES))
            key = await self._objects.read(KEY)  # another replica's, if it came first
        if key is None or len(key) != KEY_BYTES:
            logger.error("the file store's object %r does not have %d bytes", KEY, KEY_BYTES)
            raise FilesUnavailable("Uploaded files cannot be reached now.")
        self._key = key
        return key

    # Uploading

    async def _take_place(self, scope: str, upload: Upload) -> Listed:
        digest = await in_thread_if_large(len(upload.content), _digest, self._key, scope, upload.content)
        while True:
            now = self._now()
            expires = int(now) + (upload.ttl_s or self._config.file_ttl_s)
            file_id = FileId.new(now, expires, len(upload.content), upload.purpose, digest)
            place = Listed(scope, file_id, ready=False)
            if await self._objects.create(place.path, b""):
                return place

    async def _with_room(self, mine: Listed) -> list[Listed]:
        """All files, once they fit.

        Those that have expired make room first. Of uploads that run at the same time, those with later ids give way:
        one that would fit without these waits until they have.
        """
        pauses = iter(PAUSES_S)
        while fault := fault_of(listed := await self._list_all(), mine.scope, self._config):
            if expired := [one for one in listed if self._has_expired(one.id) and one.id != mine.id]:
                await self._remove(expired, mine)
                continue
            before = [one for one in listed if one.ready or str(one.id) <= str(mine.id)]
            pause_s = next(pauses, None)
            if pause_s is None or fault_of(before, mine.scope, self._config):
                raise fault
            await asyncio.sleep(pause_s)
        return listed

    async def _content_of_equal(self, mine: Listed, listed: Sequence[Listed]) -> str | None:
        """Name of the content that an equal file of the same owner has brought; None where there is none."""
        for one in listed:
            if one.ready and one.likeness == mine.likeness:
                _, known = await self._known(one)
                if known:
                    return known["content"]
        return None

    # Reading and removing

    async def _find(self, owner: Owner | None, text: str) -> tuple[Listed, dict[str, str]]:
        scope = await self._scope(owner)
        file_id = FileId.parse(text)
        if file_id is None or self._has_expired(file_id):
            raise _missing()
        one, known = await self._known(Listed(scope, file_id, ready=True))
        if not known:
            raise _missing()
        return one, known

    async def _known(self, one: Listed) -> tuple[Listed, dict[str, str]]:
        """What the store knows of a file beside its id; nothing while it is uploaded and once it is removed."""
        data = await self._objects.read(one.path)
        return one, _words_of(data, one) if data else {}

    async def _remove(self, gone: Sequence[Listed], mine: Listed | None = None) -> None:
        """Make files unusable, and then remove the contents that no other file has.

        Args:
            gone: The files.
            mine: A file whose upload has not decided yet what content it refers to.
        """
        if not gone:
            return
        known = await self._in_parallel(self._known, gone)
        await self._in_parallel(self._objects.delete, [one.path for one in gone])
        folder = f"files/{gone[0].scope}" if len({one.scope for one in gone}) == 1 else "files"
        listed = [one for one in await _all_of(self._list(folder)) if mine is None or one.id != mine.id]
        contents = {f"content/{one.scope}/{known_of.get('content', one.id)}": one.likeness for one, known_of in known}
        await self._remove_unused(contents, listed)

    async def _remove_unused(self, contents: Mapping[str, Likeness], listed: Sequence[Listed]) -> None:
        """Remove those contents to which no file of a list refers, and none whose upload runs may refer."""
        likenesses = set(contents.values())
        alike = [one for one in listed if one.likeness in likenesses]
        uploading = {one.likeness for one in alike if not one.ready}
        candidates = {path for path, likeness in contents.items() if likeness not in uploading}
        ready = [one for one in alike if one.ready]
        for start in range(0, len(ready), PARALLEL):  # a thousand may be alike, of which mostly the first decide
            if not candidates:
                return
            known = await self._in_parallel(self._known, ready[start : start + PARALLEL])
            candidates -= {f"content/{one.scope}/{known_of.get('content')}" for one, known_of in known}
        await self._in_parallel(self._objects.delete, [*candidates])

    async def _list(self, folder: str) -> AsyncIterator[Listed]:
        async for entry in self._objects.entries(folder):
            *_, scope, name = entry.path.rsplit("/", 2)
            if file_id := FileId.parse(name):
                yield Listed(scope, file_id, ready=entry.size > 0)

    def _has_expired(self, file_id: FileId) -> bool:
        return file_id.expires_s <= self._now()

    def _is_left_behind(self, one: Listed) -> bool:
        return one.id.created_s + max(LEFT_BEHIND_S, 2 * self._config.request_timeout_s) < self._now()

    async def _in_parallel(self, work: Callable[[S], Awaitable[T]], items: Sequence[S]) -> list[T]:
        """The results of ``work`` on each item, in order."""
        results: dict[int, T] = {}
        left = iter(enumerate(items))

        async def go_on() -> None:
            for at, item in left:
                async with self._turns:
                    results[at] = await work(item)

        await _gathered([go_on() for _ in range(min(PARALLEL, len(items)))])
        return [results[at] for at in range(len(items))]

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what the request that caused it does not wait for."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _digest(key: bytes, scope: str, content: bytes) -> bytes:
    digest = blake2b(scope.encode(), key=key, digest_size=DIGEST_BYTES, person=b"content")
    digest.update(content)
    return digest.digest()


def _words_of(data: bytes, one: Listed) -> dict[str, str]:
    """What an object holds; nothing if it is damaged, so that its owner still has all others and can remove them."""
    try:
        known = json.loads(data)
        return {"filename": str(known["filename"]), "content": str(known["content"])}
    except (ValueError, TypeError, KeyError, RecursionError):
        logger.warning("the file store's object %s is damaged", one.path)
        return {}


def _missing() -> NoSuchFile:
    return NoSuchFile("There is no file of this id: it was never here, has expired, or has been deleted.")


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    """Do ``work``; where that fails, a sweep does it."""
    try:
        await work
    except VlmError:
        logger.warning("an upload's place is left to the next sweep")


async def _all_of(items: AsyncIterator[T]) -> list[T]:
    return [item async for item in items]


async def _gathered(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Do all at the same time; the first error ends all."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
