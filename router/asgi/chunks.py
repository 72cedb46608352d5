"""The chunks of a backend as an answer goes out: one completion, or server-sent events. Knows no format."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable

from router.asgi.format import EventWriter
from vlm.errors import EngineFailure, VlmError
from vlm.types import Chunk, Completion

UNFINISHED = EngineFailure("The model stopped before its answer was complete.")


async def whole(chunks: AsyncIterable[Chunk]) -> Completion:
    """The completion at the end of ``chunks``.

    Raises:
        EngineFailure: There is none.
    """
    async for chunk in chunks:
        if chunk.completion is not None:
            return chunk.completion
    raise EngineFailure(UNFINISHED.message)


async def sse(
    first: Awaitable[Chunk | None], rest: AsyncGenerator[Chunk, None], writer: EventWriter
) -> AsyncGenerator[bytes, None]:
    """The events of a whole answer, those of one chunk together. ``first`` is its first chunk, perhaps here already."""
    if opening := writer.opening():
        yield opening
    try:
        chunk = await first
        while chunk is not None:
            if events := b"".join(writer.events(chunk)):
                yield events
            if chunk.completion is not None:
                return
            chunk = await anext(rest, None)
        yield writer.failure(UNFINISHED)
    except VlmError as error:
        yield writer.failure(error)
