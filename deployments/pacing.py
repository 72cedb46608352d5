"""Fewer, larger chunks: each one that crosses a process costs about as much whether it holds one token or ten.

Owns when a chunk may wait and how those that waited are joined. Knows nothing of where they come from or go to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from vlm.types import Chunk


async def paced(chunks: AsyncIterator[Chunk], every_s: float) -> AsyncGenerator[Chunk, None]:
    """The same text in at most one chunk per ``every_s``; the first and the last go out at once.

    Closing the generator closes ``chunks`` too. Their error comes after what came before it.
    """
    held = _Held(every_s)
    pump = asyncio.create_task(_pump(chunks, held))
    pump.add_done_callback(lambda _: held.release())
    try:
        while not pump.done() or held.chunks:
            await held.ready.wait()
            if held.chunks:
                yield held.take()
        await pump
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)
        held.forget()


async def _pump(chunks: AsyncIterator[Chunk], held: _Held) -> None:
    async for chunk in chunks:
        held.put(chunk)


class _Held:
    """The chunks that wait for their turn; ``ready`` is set when it has come."""

    def __init__(self, every_s: float) -> None:
        self.chunks: list[Chunk] = []
        self.ready = asyncio.Event()
        self._every_s = every_s
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def put(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        if chunk.completion is not None or self._loop.time() >= self._due:
            self.release()
        elif self._timer is None:
            self._timer = self._loop.call_at(self._due, self.release)

    def take(self) -> Chunk:
        joined = Chunk.joined(self.chunks)
        self.chunks = []
        self.ready.clear()
        self.forget()
        self._due = self._loop.time() + self._every_s
        return joined

    def release(self) -> None:
        self.ready.set()

    def forget(self) -> None:
        """Stop the timer, if one runs."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
