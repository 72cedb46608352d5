"""The images of a request, from data URLs and from the web."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from router.asgi.format import ImageLoader, ImageReference, Requester
from router.asgi.threads import in_thread_if_large
from router.fetch.fetcher import Fetcher
from router.images import not_a_url
from vlm.errors import InvalidImage

Check = Callable[[bytes, str], None]


class UrlLoader:
    """Loads images of any kind of URL.

    Args:
        data_urls: Loads those that are part of the request.
        fetcher: Downloads the others; None refuses them.
        check: Raises ``InvalidImage`` for bytes that are not an image within the limits; also takes the field's path.
    """

    def __init__(self, data_urls: ImageLoader, fetcher: Fetcher | None, check: Check) -> None:
        self._data_urls = data_urls
        self._fetcher = fetcher
        self._check = check

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
        if reference.is_file:
            raise InvalidImage("There is no such file.", reference.param, "image_file_not_found")
        if _scheme(reference.url) == "data":
            return (await self._data_urls.load([reference], requester))[0]
        data = await self._download(reference, requester)
        await in_thread_if_large(len(data), self._check, data, reference.param)
        return data

    async def _download(self, reference: ImageReference, requester: Requester) -> bytes:
        if self._fetcher is None or _scheme(reference.url) not in ("http", "https"):
            raise not_a_url(reference.url, reference.param, web=self._fetcher is not None)
        try:
            return await self._fetcher.fetch(reference.url, requester)
        except InvalidImage as error:
            raise InvalidImage(error.message, reference.param, error.code) from error


def _scheme(url: str) -> str:
    return url[:16].partition(":")[0].lower()
