"""Work that ends at a deadline, or when the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from vlm.errors import DeadlineExceeded
from vlm.types import Chunk

T = TypeVar("T")


async def next_or_none(items: AsyncGenerator[T, None]) -> T | None:
    """The next item, or None after the last."""
    return await anext(items, None)


async def give_up(step: asyncio.Future[Any] | None) -> None:
    """Cancel ``step``, if there is one, and wait until it has ended."""
    if step is not None:
        step.cancel()
        await asyncio.gather(step, return_exceptions=True)


async def until(deadline: float, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled at ``deadline`` (in seconds on the event loop's clock).

    Raises:
        DeadlineExceeded: There was no result in time.
    """
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError as error:
        raise DeadlineExceeded(
            "The request took longer than this server allows; try again, or ask for less at once."
        ) from error


async def within(deadline: float, chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
    """``chunks`` until ``deadline``; closes them in any case.

    Raises:
        DeadlineExceeded: The deadline came before the last chunk.
    """
    try:
        while (chunk := await until(deadline, next_or_none(chunks))) is not None:
            yield chunk
    finally:
        await chunks.aclose()


async def while_connected(receive: Receive, work: Coroutine[None, None, None]) -> None:
    """Do ``work``, and cancel it as soon as the client disconnects."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_until_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
