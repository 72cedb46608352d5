"""The engine as its users see it: ``async for chunk in engine.generate(request)``.

One thread owns the device and runs :class:`~vlm.engine.core.Core`; images are prepared in worker threads; clients
live in their own event loops and are only ever notified. A client that leaves closes its generator, which frees all.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from vlm.engine import compose
from vlm.engine.blocks import CachePlan
from vlm.engine.config import EngineConfig, EngineStats
from vlm.engine.core import Core, Event
from vlm.engine.prepare import Preparer
from vlm.engine.processor_cache import ImagePending
from vlm.engine.sequence import Sequence
from vlm.errors import EngineFailure, Overloaded
from vlm.models.base import LoadedModel
from vlm.models.processor import ProcessedImage
from vlm.types import Chunk, Completion, Request

log = logging.getLogger(__name__)

STOPPING = "The engine is stopping."
BROKEN = "The device failed; this replica is being replaced."


class Engine:
    """A model that many clients share. Use it as a context manager, or call :meth:`start` and :meth:`stop`."""

    def __init__(self, loaded: LoadedModel, config: EngineConfig = EngineConfig()) -> None:
        """Allocate the KV cache.

        Raises:
            ConfigError: ``cache_bytes`` cannot hold one sequence.
        """
        model = loaded.model
        beams = model.defaults.num_beams or 1
        self._plan = CachePlan.fit(model.cache, model.dtype.itemsize, config.cache_bytes, config.max_batch, beams)
        self._core = Core(loaded, self._plan, config.max_prefill, config.encoder_cache_bytes)
        self._preparer = Preparer(
            model, loaded.processor, self._core.scheduler.pool.total, config.processor_cache_bytes
        )
        self._places = self._plan.slots + config.max_waiting
        self._accepted: set[_Stream] = set()
        self._door = threading.Lock()  # whoever passes it is in the inbox before _Stop is
        self._inbox: SimpleQueue[_Command] = SimpleQueue()
        self._streams: dict[Sequence, _Stream] = {}  # of the device thread alone
        self._workers = ThreadPoolExecutor(config.prepare_threads, thread_name_prefix="prepare")
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._stopping = False

    def start(self) -> Self:
        """Start the device thread."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End what is running with an error and stop the thread; again is harmless."""
        self._shut_door()
        self._inbox.put(_Stop())
        if self._thread.ident is None:
            self._run()  # never started: what waits is ended here
        else:
            self._thread.join()
        self._workers.shutdown(wait=False)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def healthy(self) -> bool:
        """False once the device is broken or its thread has ended: the process should be replaced."""
        return not self._core.broken and (self._thread.ident is None or self._thread.is_alive())

    def stats(self) -> EngineStats:
        """The counters, from any thread; they may belong to two neighbouring steps."""
        return replace(self._core.stats(), accepted=len(self._accepted))

    async def complete(self, request: Request) -> Completion:
        """The whole answer. Raises as :meth:`generate` does."""
        completion = None
        async for chunk in self.generate(
            replace(request, stream=False)
        ):  # to its end: only then has the request left its place
            completion = chunk.completion
        assert completion is not None, "the last chunk carries the completion"
        return completion

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Answer a request chunk by chunk; the last chunk carries the completion.

        Closing the generator (or cancelling the task that reads it) frees all that the request holds.

        Raises:
            Overloaded: Every place is taken; nothing was done.
            InvalidRequest: Also as InvalidImage or UnsupportedTask; before the first chunk.
            EngineFailure: The model failed, or the engine is stopping.
        """
        if compose.is_compound(request):
            yield await compose.answer(request, self.complete, self._places)
            return
        stream = _Stream(asyncio.get_running_loop())
        preparing = self._enter(stream, request)
        try:
            sequence = await self._prepared(preparing, request)
            self._submit(sequence, stream)
            try:
                while not stream.ended:
                    yield await stream.receive()
            finally:
                if sequence.finish_reason is None:
                    self._inbox.put(_Abort(sequence))
        finally:
            # No lock: the garbage collector may close a generator in a thread that holds it.
            self._accepted.discard(stream)

    def _enter(self, stream: _Stream, request: Request) -> Future[Sequence]:
        """Take a place and start to prepare."""
        with self._door:
            self._check_open()
            if len(self._accepted) >= self._places:
                raise Overloaded(f"All {self._places} places are taken; try again in a moment.", code="overloaded")
            preparing = self._workers.submit(self._prepare, request)
            self._accepted.add(stream)
            return preparing

    async def _prepared(self, preparing: Future[Sequence], request: Request) -> Sequence:
        """The prepared request. While another one has the same image, this one waits here and in no thread."""
        try:
            return await asyncio.wrap_future(preparing)
        except ImagePending as busy:
            image = await asyncio.wrap_future(busy.image)
        with self._door:
            self._check_open()
            preparing = self._workers.submit(self._prepare, request, image)
        return await asyncio.wrap_future(preparing)

    def _submit(self, sequence: Sequence, stream: _Stream) -> None:
        with self._door:
            self._check_open()
            self._inbox.put(_Submit(sequence, stream))

    def _check_open(self) -> None:
        if self._core.broken:
            raise EngineFailure(BROKEN)
        if self._stopping:
            raise EngineFailure(STOPPING)

    def _shut_door(self) -> None:
        with self._door:
            self._stopping = True

    def _prepare(self, request: Request, image: ProcessedImage | None = None) -> Sequence:
        self._check_open()  # so that a long queue of images does not outlive stop()
        return self._preparer.prepare(request, image)

    def _run(self) -> None:
        """The device thread: take commands (waiting for one only when idle), step, notify."""
        try:
            while self._obey(wait=not self._core.busy):
                self._deliver(self._core.step())
                if self._core.broken:
                    self._deliver(self._core.fail_all(BROKEN))
        finally:
            self._end()

    def _end(self) -> None:
        """However the thread ends, nobody may wait for it: not who runs, and not who is still in the inbox."""
        self._shut_door()
        self._obey(wait=False)
        self._deliver([Event(sequence, error=EngineFailure(STOPPING)) for sequence in self._streams])
        self._core.fail_all(STOPPING)

    def _obey(self, wait: bool) -> bool:
        """Carry out all commands that are there; False once told to stop."""
        while wait or not self._inbox.empty():
            wait = False
            # No local names here: while the thread waits, they would keep the last sequence and its image alive.
            if not self._carry_out(self._inbox.get()):
                return False
        return True

    def _carry_out(self, command: _Command) -> bool:
        match command:
            case _Submit(sequence, stream):
                self._streams[sequence] = stream
                self._core.submit(sequence)
            case _Abort(sequence):
                self._streams.pop(sequence, None)
                self._core.abort(sequence)
            case _Stop():
                return False
        return True

    def _deliver(self, events: Iterable[Event]) -> None:
        """Hand events to their streams; each event loop is woken once."""
        woken: defaultdict[asyncio.AbstractEventLoop, list[_Stream]] = defaultdict(list)
        for event in events:
            ended = event.error is not None or event.sequence.finish_reason is not None
            stream = self._streams.pop(event.sequence) if ended else self._streams[event.sequence]
            stream.events.append(event)
            woken[stream.loop].append(stream)
        for loop, streams in woken.items():
            try:
                loop.call_soon_threadsafe(_wake, streams)
            except RuntimeError:  # the loop is closed: its clients are gone, and nobody is left to close their streams
                log.warning("an event loop closed with %d requests unfinished", len(streams))
                self._abandon(loop)

    def _abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        self._accepted.difference_update([stream for stream in tuple(self._accepted) if stream.loop is loop])
        for sequence in [one for one, stream in self._streams.items() if stream.loop is loop]:
            del self._streams[sequence]
            self._core.abort(sequence)


class _Stream:
    """One client's events, between the device thread and its event loop. Chunks that pile up are joined."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.events: deque[Event] = deque()
        self.ready = asyncio.Event()
        self.ended = False

    async def receive(self) -> Chunk:
        """All that has come since the last call, as one chunk; waits for the first. An error comes after it."""
        while not self.events:
            self.ready.clear()
            await self.ready.wait()
        chunks = []
        while self.events and (chunk := self.events[0].chunk) is not None:
            chunks.append(chunk)
            self.events.popleft()
        if not chunks:
            error = self.events.popleft().error
            assert error is not None
            raise error
        self.ended = chunks[-1].completion is not None
        return Chunk.joined(chunks)


def _wake(streams: Iterable[_Stream]) -> None:
    for stream in streams:
        stream.ready.set()


@dataclass(frozen=True, slots=True)
class _Submit:
    sequence: Sequence
    stream: _Stream


@dataclass(frozen=True, slots=True)
class _Abort:
    sequence: Sequence


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


_Command = _Submit | _Abort | _Stop
