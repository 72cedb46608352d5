"""The engine as its users see it: ``async for chunk in engine.generate(request)``, or ``engine.answer(request)``.

One thread owns the device and runs :class:`~vlm.engine.core.Core`. Processes or threads decode images. Clients live
in event loops of their own, which the device thread notifies and never waits for. Closing a client's generator frees
all that its request holds.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Literal, Self, TypeVar, cast, overload

from vlm.decoding.pool import STOPPING
from vlm.engine import choices, compose
from vlm.engine.blocking import BlockingCalls
from vlm.engine.blocks import CachePlan
from vlm.engine.config import EngineConfig, EngineStats
from vlm.engine.core import Core, Event
from vlm.engine.intake import Intake, decoder_of
from vlm.engine.load import Load
from vlm.engine.places import Demand, Hold, Places
from vlm.engine.prepare import Preparer
from vlm.engine.processor_cache import ProcessorCache
from vlm.engine.sequence import Sequence
from vlm.errors import EngineClosed, EngineLost, Overloaded, VlmError
from vlm.generations import check_generations, is_compound
from vlm.models.base import LoadedModel
from vlm.types import Chunk, Completion, Request

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

BROKEN = "The device failed, so this engine answers no more requests."


class Engine:
    """A model that many clients share: the requests of all are generated in one batch.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`. Every method may be called from any thread::

        with Engine(load("miniatures/blip-large")) as engine:
            print(engine.answer(Request(Path("photo.jpg").read_bytes())).text)
    """

    def __init__(self, loaded: LoadedModel, config: EngineConfig = EngineConfig()) -> None:
        """Allocate the KV cache; :meth:`start` starts the device thread.

        Args:
            loaded: What :func:`vlm.loading.load` returns.
            config: The engine's settings.

        Raises:
            ConfigError: ``cache_bytes`` is too small for one sequence of the model's longest length.
        """
        model = loaded.model
        beams = model.defaults.num_beams or 1
        plan = CachePlan.fit(model.cache, model.dtype.itemsize, config.cache_bytes, config.max_batch, beams)
        log.info("%s: %s", loaded.source, plan.granted(config.max_batch))
        self._core = Core(
            loaded, plan, config.max_prefill, config.encoder_cache_bytes, slot_reserve=config.slot_reserve
        )
        self._images = ProcessorCache(config.processor_cache_bytes)
        self._decoder = decoder_of(loaded.processor, config)
        preparer = Preparer(model, loaded.processor, self._core.scheduler.pool.total, self._images)
        self._intake = Intake(preparer, self._images, self._decoder, config.prepare_threads)
        self._demand = partial(Demand.of, plan=plan, defaults=model.defaults)
        self._load = Load(plan.slots)
        self._places = Places(plan.slots + config.max_waiting, config.caller_share, self._load.changed)
        self._blocking = BlockingCalls(self._places.for_one_caller, self._demand)
        self._lock = threading.Lock()  # what is submitted under it is in the inbox before _Stop is
        self._inbox: SimpleQueue[_Command] = SimpleQueue()
        self._streams: dict[Sequence, _Stream] = {}  # only the device thread uses it
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._stopping = False

    def start(self) -> Self:
        """Start the device thread, and what decodes images."""
        self._thread.start()
        self._decoder.start()
        return self

    def stop(self) -> None:
        """End every request with EngineFailure and stop the device thread; stopping again does nothing."""
        self._refuse_requests()
        self._intake.stop()
        self._decoder.stop()
        self._inbox.put(_Stop())
        if self._thread.ident is None:
            self._run()  # never started, so the requests that wait are ended here
        else:
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def healthy(self) -> bool:
        """False once the device is broken, its thread has ended or images cannot be decoded: replace the process."""
        runs = self._thread.ident is None or self._thread.is_alive()
        return runs and not self._core.broken and self._decoder.healthy

    @property
    def slots(self) -> int:
        """How many sequences run at once, at most."""
        return self._core.scheduler.slots

    @property
    def rows(self) -> int:
        """How many beams they have together, at most."""
        return self._core.scheduler.rows

    def stats(self) -> EngineStats:
        """The counters, from any thread; they may belong to two neighbouring steps."""
        places, used = self._places, self._places.used
        return replace(
            self._core.stats(),
            accepted=places.requests,
            used_places=used,
            total_places=places.capacity,
            queue_s=self._load.queue_s(used),
        )

    async def complete(self, request: Request) -> Completion:
        """Answer a request as a whole. Raises as :meth:`generate` does."""
        whole = replace(request, stream=False) if request.stream else request
        if request.n > 1:
            return await _completion(self.generate(whole))
        holds = self._accept(request)
        try:
            return await compose.complete(whole, _with_each(holds, self._complete_one))
        finally:
            self._places.give_back(holds)

    def answer(self, request: Request) -> Completion:
        """Answer a request and wait for it; for callers that are not asynchronous.

        Any thread may call it, also one in which an event loop runs, which it then blocks. It waits while other
        blocking calls use all the places that one caller may hold.

        Raises:
            VlmError: As :meth:`generate`; Overloaded only where asynchronous clients use the engine's places.
        """
        [completion] = self.answer_all([request])
        return completion

    @overload
    def answer_all(
        self, requests: Iterable[Request], *, return_exceptions: Literal[False] = ...
    ) -> list[Completion]: ...

    @overload
    def answer_all(
        self, requests: Iterable[Request], *, return_exceptions: Literal[True]
    ) -> list[Completion | VlmError]: ...

    def answer_all(
        self, requests: Iterable[Request], *, return_exceptions: bool = False
    ) -> list[Completion] | list[Completion | VlmError]:
        """Answer many requests and wait for all; for callers that are not asynchronous, as :meth:`answer` is.

        No more are in flight than one caller may hold places, and ``requests`` is read only as they are needed, so a
        generator that reads the images of a folder has no more than that in memory.

        Args:
            requests: Any number of them.
            return_exceptions: Return the error of a request in its place, so that the others are answered.

        Returns:
            The answers in the order of the requests.

        Raises:
            VlmError: The first one that occurs. No further request is begun then, those in flight are cancelled, and
                the error is raised once they have ended.
        """
        answers = self._blocking.answer_all(self.complete, requests, return_exceptions=return_exceptions)
        return cast("list[Completion]", answers)

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Answer a request chunk by chunk; the last chunk carries the completion.

        Closing the generator, or cancelling the task that reads it, frees all that the request holds.

        Raises:
            Overloaded: The engine's places are taken, or the caller's share of them; nothing was done.
            InvalidRequest: The request cannot be answered (also InvalidImage and UnsupportedTask); before any chunk.
            EngineFailure: The model failed, or the engine is stopping.
        """
        holds = self._accept(request)
        try:
            if is_compound(request):
                whole = replace(request, stream=False)
                yield Chunk.whole(await compose.complete(whole, _with_each(holds, self._complete_one)))
                return
            generate_one = _with_each(holds, self._generate_one)
            chunks = generate_one(request) if request.n == 1 else choices.generate(request, generate_one)
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk
        finally:
            self._places.give_back(holds)

    def _accept(self, request: Request) -> list[Hold]:
        """Take the places of a request, one hold for each of its generations, or raise that there are none."""
        self._check_open()
        check_generations(request)
        take = partial(self._places.take, self._demand(request), request.caller, asyncio.get_running_loop())
        try:
            return take()
        except Overloaded as error:
            if self._give_back_of_closed_loops():
                return take()
            error.retry_after_s = self._load.retry_after_s(self._places.used)
            raise

    def _give_back_of_closed_loops(self) -> int:
        """Give back what nobody else does: a loop that closes does not end its generators. Returns how many requests.

        The device thread notices only those whose sequences have begun.
        """
        loops = cast("set[asyncio.AbstractEventLoop]", self._places.owners)
        closed = [loop for loop in loops if loop.is_closed()]
        return sum(map(self._places.give_back_all, closed))

    async def _generate_one(self, request: Request, hold: Hold, generations: int) -> AsyncGenerator[Chunk, None]:
        """The chunks of one of so many generations, which gives its places back when it ends."""
        try:
            sequence, stream = await self._begin(request, generations)
            try:
                while not stream.ended:
                    yield await stream.receive()
                self._load.served(hold.places)
            finally:
                self._leave(sequence)
        finally:
            self._places.give_back([hold])

    async def _complete_one(self, request: Request, hold: Hold, generations: int) -> Completion:
        """The answer of one of so many, which comes with one chunk; it gives its places back when it ends."""
        try:
            sequence, stream = await self._begin(request, generations)
            try:
                completion = (await stream.receive()).completion
                self._load.served(hold.places)
            finally:
                self._leave(sequence)
        finally:
            self._places.give_back([hold])
        assert completion is not None, "an answer that does not stream has one chunk"
        return completion

    async def _begin(self, request: Request, generations: int) -> tuple[Sequence, _Stream]:
        """Prepare a request for one of so many generations, and submit it."""
        stream = _Stream(asyncio.get_running_loop())
        sequence = await self._intake.prepared(request, generations)
        with self._lock:
            self._check_open()
            self._inbox.put(_Submit(sequence, stream))
        return sequence, stream

    def _leave(self, sequence: Sequence) -> None:
        """The client has its answer, or has left."""
        if sequence.finish_reason is None:
            self._inbox.put(_Abort(sequence))

    def _check_open(self) -> None:
        if self._core.broken:
            raise EngineClosed(BROKEN)
        if self._stopping:
            raise EngineClosed(STOPPING)

    def _refuse_requests(self) -> None:
        with self._lock:
            self._stopping = True

    def _run(self) -> None:
        """The device thread: take commands (waiting for one only when idle), step, notify."""
        try:
            while self._drain_commands(wait=not self._core.busy):
                self._deliver(self._core.step())
                if self._core.broken:
                    self._deliver(self._core.fail_all(BROKEN))
        finally:
            self._end()

    def _end(self) -> None:
        """End every request with an error, however the thread ends: those that it has, and those in the inbox."""
        kind = EngineClosed if self._stopping else EngineLost  # of a bug that ends it, any sequence may be the reason
        self._refuse_requests()
        self._drain_commands(wait=False)
        self._deliver([Event(sequence, error=kind(STOPPING)) for sequence in self._streams])
        self._core.fail_all(STOPPING)

    def _drain_commands(self, wait: bool) -> bool:
        """Execute all commands that are there; with ``wait``, wait for one first. Returns False on _Stop."""
        while wait or not self._inbox.empty():
            wait = False
            # No local names here: while the thread waits, they would keep the last sequence and its image alive.
            if not self._execute(self._inbox.get()):
                return False
        return True

    def _execute(self, command: _Command) -> bool:
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
            except RuntimeError:  # the loop is closed, so its clients can no longer close their streams
                self._abandon(loop)

    def _abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        unfinished = self._places.give_back_all(loop)
        if unfinished:  # clients that left before it closed have only their abort still in the inbox
            log.warning("an event loop closed with %d requests unfinished", unfinished)
        for sequence in [one for one, stream in self._streams.items() if stream.loop is loop]:
            del self._streams[sequence]
            self._core.abort(sequence)


class _Stream:
    """One client's events, from the device thread to its event loop. Chunks that it is slow to read are joined."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.events: deque[Event] = deque()
        self.ready = asyncio.Event()
        self.ended = False

    async def receive(self) -> Chunk:
        """Wait for a chunk, and return it joined with all others that have come. Raises the error that follows them."""
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
        return chunks[0] if len(chunks) == 1 else Chunk.joined(chunks)


def _with_each(holds: Iterable[Hold], one: Callable[[Request, Hold, int], Answer]) -> Callable[[Request], Answer]:
    """What answers each generation of a request with one of its ``holds``, which are all alike."""
    left = list(holds)
    generations = len(left)
    return lambda request: one(request, left.pop(), generations)


async def _completion(chunks: AsyncGenerator[Chunk, None]) -> Completion:
    """The completion in the last of ``chunks``."""
    completion = None
    # To the generator's end: only then does the request no longer count against the capacity. It needs no closing: what
    # ends this loop early is raised within the generator.
    async for chunk in chunks:
        completion = chunk.completion
    assert completion is not None, "the last chunk carries the completion"
    return completion


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
