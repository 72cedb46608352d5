"""Where files are kept: a folder, or an object store by its URL. Owns the use of obstore, and nothing else does.

Every write is atomic: an object is there as a whole or not at all. Credentials of an object store come from the
environment, which obstore reads itself (``AWS_ACCESS_KEY_ID``, ``GOOGLE_APPLICATION_CREDENTIALS``, ...).
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from router.asgi.errors import FilesUnavailable
from router.config import TEMPORARY_FILES
from vlm.errors import ConfigError

if TYPE_CHECKING:  # it is loaded only where files are kept
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

logger = logging.getLogger(__name__)

TIMEOUT_S = 10
"""Of one call of a store and all attempts at it together, and of each part of a list: a folder on another machine may
not answer either."""
CONNECT_TIMEOUT_S = 3
MAX_RETRIES = 2

LIST_CHUNK = 1000
"""Objects that a list gives at a time; other requests go on between them. One page of an object store."""

MAX_LOGGED = 300
"""Characters of a store's own words that are logged."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An object in a list.

    Attributes:
        path: Its whole path, with slashes.
        size: Number of bytes.
    """

    path: str
    size: int


class Objects:
    """The objects of one store.

    Args:
        store: Of obstore.
        folder: Where they are, if that is a folder.
    """

    def __init__(self, store: ObjectStore, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    async def create(self, path: str, data: bytes) -> bool:
        """Write an object; False, and nothing is written, where there is one of that path."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        async with _failures():
            try:
                await obstore.put_async(self._store, path, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

    async def write(self, path: str, data: bytes) -> None:
        """Write an object, in place of one of the same path."""
        import obstore

        async with _failures():
            await obstore.put_async(self._store, path, data, use_multipart=False)

    async def read(self, path: str) -> bytes | None:
        """The bytes of an object; None where there is none."""
        import obstore

        async with _failures():
            try:
                found = await obstore.get_async(self._store, path)
                return bytes(await found.bytes_async())
            except FileNotFoundError:
                return None

    async def delete(self, path: str) -> None:
        """Remove an object, if it is there."""
        import obstore

        async with _failures():
            with suppress(FileNotFoundError):
                await obstore.delete_async(self._store, path)

    async def entries(self, folder: str) -> AsyncIterator[Entry]:
        """Every object below a folder, in no order."""
        import obstore

        chunks = aiter(obstore.list(self._store, folder, chunk_size=LIST_CHUNK))
        while chunk := await _next_of(chunks):
            for one in chunk:
                yield Entry(one["path"], one["size"])

    async def remove_leftovers(self, before_s: float) -> None:
        """Remove what processes that were killed had begun to write to a folder before that time."""
        if self._folder is not None:
            async with _failures():
                await asyncio.to_thread(_remove_leftovers, self._folder, before_s)


def open_objects(url: str) -> Objects:
    """The objects at a URL, or in a folder that is made if it is not there.

    Raises:
        ConfigError: They cannot be opened.
    """
    from obstore.exceptions import BaseError
    from obstore.store import LocalStore, from_url

    if url == TEMPORARY_FILES:
        raise ConfigError(
            f"files_url: {url} is a folder of make serve, and this is none; name a folder that all nodes share, or an "
            "object store."
        )
    if url.startswith("/"):
        folder = _private_folder(Path(url))
        return Objects(LocalStore(folder, automatic_cleanup=True), folder)
    try:
        store = from_url(
            url,
            client_options={
                "timeout": timedelta(seconds=TIMEOUT_S),
                "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
                "allow_http": True,  # for an endpoint in the environment that has no TLS; the stores' own have
            },
            retry_config={"max_retries": MAX_RETRIES, "retry_timeout": timedelta(seconds=TIMEOUT_S)},
        )
    except (BaseError, ValueError) as error:
        raise ConfigError(f"files_url: {url} cannot be opened: {_first_line(error)}") from error
    return Objects(store)


def _private_folder(folder: Path) -> Path:
    """The folder, which nobody but its owner can enter: that alone keeps its files from other users."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise ConfigError(f"files_url: the folder {folder} cannot be used: {error.strerror}.") from error
    if found.st_uid not in (os.geteuid(), 0):
        raise ConfigError(f"files_url: the folder {folder} belongs to another user; take one of your own.")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError(f"files_url: other users can enter the folder {folder}; run: chmod 700 {folder}")
    return folder


@asynccontextmanager
async def _failures() -> AsyncIterator[None]:
    """What a store reports becomes one error, and so does its silence; its words are for the operator alone."""
    from obstore.exceptions import BaseError

    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield
    except (BaseError, OSError, ValueError) as error:
        logger.warning("the file store failed: %s: %s", type(error).__name__, _first_line(error)[:MAX_LOGGED])
        raise FilesUnavailable("Uploaded files cannot be reached now; try again in a moment.") from error


async def _next_of(chunks: AsyncIterator[Sequence[ObjectMeta]]) -> Sequence[ObjectMeta]:
    async with _failures():
        try:
            return await anext(chunks)
        except StopAsyncIteration:
            return ()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _remove_leftovers(folder: Path, before_s: float) -> None:
    """obstore writes to a file whose name ends in ``#`` and a number, and then renames it."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names if "#" in name):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before_s:
                    path.unlink()
