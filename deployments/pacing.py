"""Fewer, larger chunks.

To send a chunk to another process costs about the same whether it holds one token or ten, so chunks that follow each
other closely are joined.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from vlm.types import Chunk


async def paced(chunks: AsyncIterator[Chunk], every_s: float) -> AsyncGenerator[Chunk, None]:
    """The same text in at most one chunk per ``every_s`` seconds; the first and the last chunk are sent at once.

    Closing the generator closes ``chunks`` too. An error that they raise is raised after all chunks before it are sent.
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
        held.cancel_timer()


async def _pump(chunks: AsyncIterator[Chunk], held: _Held) -> None:
    async for chunk in chunks:
        held.put(chunk)


class _Held:
    """The chunks that have not been sent; ``ready`` is set when they may be."""

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
        joined = self.chunks[0] if len(self.chunks) == 1 else Chunk.joined(self.chunks)
        self.chunks = []
        self.ready.clear()
        self.cancel_timer()
        self._due = self._loop.time() + self._every_s
        return joined

    def release(self) -> None:
        self.ready.set()

    def cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
