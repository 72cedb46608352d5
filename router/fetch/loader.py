"""The images of a request, from data URLs, from the web and from files that were uploaded before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from router.asgi.caller import Owner
from router.asgi.errors import NoSuchFile
from router.asgi.format import ImageLoader, ImageReference, Requester
from router.asgi.threads import in_thread_if_large
from router.fetch.fetcher import Fetcher
from router.images import not_a_url
from vlm.errors import InvalidImage

Check = Callable[[bytes, str], None]


class Files(Protocol):
    """The files that have been uploaded."""

    async def read(self, owner: Owner | None, text: str, hold: Callable[[int], None]) -> bytes:
        """The bytes of the owner's file of an id; ``hold`` counts them before they are there.

        Raises:
            NoSuchFile: There is none, or it is another's.
        """
        ...


class UrlLoader:
    """Loads images of any kind of URL, and uploaded files.

    Args:
        data_urls: Loads those that are part of the request.
        fetcher: Downloads the others; None refuses them.
        check: Raises ``InvalidImage`` for bytes that are not an image within the limits; also takes the field's path.
        files: Has the uploaded ones; None refuses them.
    """

    def __init__(
        self, data_urls: ImageLoader, fetcher: Fetcher | None, check: Check, files: Files | None = None
    ) -> None:
        self._data_urls = data_urls
        self._fetcher = fetcher
        self._check = check
        self._files = files

    async def load(self, references: Sequence[ImageReference], requester: Requester) -> Sequence[bytes]:
        """See :class:`~router.asgi.format.ImageLoader`. The images come at the same time; the first error ends all."""
        if len(references) < 2:  # tasks would cost more than reading a small image
            return [await self._load(reference, requester) for reference in references]
        try:
            async with asyncio.TaskGroup() as group:
                loading = [group.create_task(self._load(reference, requester)) for reference in references]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [one.result() for one in loading]

    async def _load(self, reference: ImageReference, requester: Requester) -> bytes:
        if not reference.is_file and not reference.is_downloaded:
            return (await self._data_urls.load([reference], requester))[0]
        get = self._read_file if reference.is_file else self._download
        data = await get(reference, requester)
        await in_thread_if_large(len(data), self._check, data, reference.param)
        return data

    async def _read_file(self, reference: ImageReference, requester: Requester) -> bytes:
        if self._files is None:
            message = "This server keeps no files; send the image within the request."
            raise InvalidImage(message, reference.param, "image_file_not_found")
        try:
            return await self._files.read(requester.owner, reference.url, requester.hold)
        except NoSuchFile as error:
            message = f"{error.message} Upload the image again."
            raise InvalidImage(message, reference.param, "image_file_not_found") from error

    async def _download(self, reference: ImageReference, requester: Requester) -> bytes:
        if self._fetcher is None or reference.scheme not in ("http", "https"):
            raise not_a_url(reference.url, reference.param, web=self._fetcher is not None)
        try:
            return await self._fetcher.fetch(reference.url, requester)
        except InvalidImage as error:
            raise InvalidImage(error.message, reference.param, error.code) from error
