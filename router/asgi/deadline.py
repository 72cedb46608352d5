"""Work that ends in time: at a deadline, or when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from vlm.errors import DeadlineExceeded
from vlm.types import Chunk

T = TypeVar("T")


async def next_or_none(pieces: AsyncGenerator[T, None]) -> T | None:
    return await anext(pieces, None)


async def give_up(step: asyncio.Future[Any] | None) -> None:
    """Cancel what is still awaited, and wait until it has ended."""
    if step is not None:
        step.cancel()
        await asyncio.gather(step, return_exceptions=True)


async def until(deadline: float, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled at ``deadline`` (on the event loop's clock).

    Raises:
        DeadlineExceeded: It came too late.
    """
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError as error:
        raise DeadlineExceeded("The request took longer than this server allows.") from error


async def within(deadline: float, chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
    """``chunks`` as long as there is time; closes them in any case."""
    try:
        while (chunk := await until(deadline, next_or_none(chunks))) is not None:
            yield chunk
    finally:
        await chunks.aclose()


async def while_connected(receive: Receive, work: Coroutine[None, None, None]) -> None:
    """Do ``work``, and cancel it as soon as the client leaves."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_until_gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
