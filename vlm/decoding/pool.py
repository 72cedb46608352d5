"""Decodes images in a few processes: within a budget of memory and a time each, and none that nobody waits for.

Each process has a thread here, which gives it one image at a time and replaces it when it has ended. So an image that
its decoder cannot cope with costs one process, and no other image notices.
"""

from __future__ import annotations

import logging
import pickle
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError

from vlm.decoding.process import REAP_S, DecodingProcess, Gone
from vlm.decoding.queue import DecodeQueue, Job
from vlm.errors import EngineClosed, EngineFailure, EngineLost, InvalidImage, VlmError
from vlm.models.processor import Preprocess, ProcessedImage
from vlm.types import EncodedImage

log = logging.getLogger(__name__)

IMAGES_PER_PROCESS = 1000
"""Then a fresh process takes over, so that what decoders lose of their memory does not add up."""

STARTS = 3
"""Number of times in a row that a process may fail to start before the pool is broken."""

PAUSE_S = 0.5
"""Time from a start that failed to the next, in seconds."""

OVERDUE_S = 10.0
"""A process is killed at an image's deadline; one that is there so many seconds later cannot be killed."""

_NOT_BY_THE_IMAGE = (-signal.SIGKILL, -signal.SIGTERM, None)  # None: killed, and not yet gone

BROKEN = "Images cannot be decoded: the processes for it do not start."
STOPPING = "The engine is stopping."


class DecodePool:
    """Decoding processes and their threads; any thread may use it."""

    def __init__(
        self,
        preprocess: Preprocess,
        processes: int,
        timeout_s: float,
        memory_bytes: int,
        *,
        images_per_process: int = IMAGES_PER_PROCESS,
        start: Callable[[bytes, float], DecodingProcess] = DecodingProcess,
    ) -> None:
        """Nothing runs before :meth:`start`.

        Args:
            preprocess: Decodes and resizes an image; it can be pickled.
            processes: Number of processes. If there are several, one is left to small images.
            timeout_s: Seconds after which an image is given up, and its process killed.
            memory_bytes: Memory for images that are being decoded.
            images_per_process: Number of images after which a process is replaced.
            start: Starts a process; see :class:`DecodingProcess`.
        """
        self._pickled = pickle.dumps(preprocess)
        self._timeout_s, self._images_per_process = timeout_s, images_per_process
        self._start_process = start
        self._queue = DecodeQueue(processes, memory_bytes)
        self._lock = threading.Lock()  # a process is killed only while the job is its own
        self._running: dict[Job, tuple[DecodingProcess, float]] = {}  # with the deadline
        self._broken = False
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._drive, args=(processes > 1 and not number,), name="decode", daemon=True)
            for number in range(processes)
        ]

    def start(self) -> None:
        """Start the processes, without waiting for them."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the processes, and every image with EngineFailure; stopping again does nothing."""
        self._stopping.set()
        self._refuse(self._closed_reason())
        with self._lock:
            running = dict(self._running)
        for job, (process, _) in running.items():
            _fail(job, EngineClosed(STOPPING))
            process.kill()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(REAP_S)

    @property
    def healthy(self) -> bool:
        """False once processes do not start, a thread has ended, or a process outlives its image's deadline."""
        if self._broken:
            return False
        with self._lock:
            overdue = any(time.monotonic() > deadline + OVERDUE_S for _, deadline in self._running.values())
        started = [thread for thread in self._threads if thread.ident is not None]
        return not overdue and (self._stopping.is_set() or all(thread.is_alive() for thread in started))

    def submit(self, image: EncodedImage, cost: int) -> Future[ProcessedImage]:
        """Decode an image as soon as the budget has room.

        Args:
            image: The encoded image, or the part of one.
            cost: See :attr:`vlm.decoding.cost.Announced.memory_bytes`.

        Returns:
            The result, or InvalidImage or EngineFailure. Cancelling it gives the image up at any time.
        """
        job = Job(image, cost)
        if not self._queue.put(job):
            _fail(job, self._closed_reason())
        job.result.add_done_callback(lambda result: self._give_up(job) if result.cancelled() else None)
        return job.result

    def _drive(self, only_small: bool) -> None:
        """A thread: keep one process running, and give it images. When the thread ends, the process does."""
        process = self._ready(None)
        while process is not None:
            process = self._decode_next(process, only_small)

    def _decode_next(self, process: DecodingProcess, only_small: bool) -> DecodingProcess | None:
        """Wait for an image and decode it. Returns the process for the next one; None if the pool stops."""
        # The job has no name outside of this call: it would keep the last image alive while the thread waits.
        if (job := self._queue.take(only_small=only_small)) is None:
            process.close()
            return None
        try:
            ready = self._ready(process)  # it may have been ended from outside while it was idle
            if ready is None:
                _fail(job, self._closed_reason())
                return None
            usable = job.context.run(self._answer, job, ready)
        finally:
            self._queue.finished(job)
            if not job.result.done():  # a bug ends this thread
                _fail(job, EngineFailure("The image could not be prepared."))
        if usable and ready.tasks < self._images_per_process:
            return ready  # whether it still runs is asked once there is an image for it
        ready.close()
        return self._ready(None)

    def _ready(self, process: DecodingProcess | None) -> DecodingProcess | None:
        """``process`` if it is still good, else a new one; None if the pool stops or none starts."""
        if process is not None and process.alive and process.tasks < self._images_per_process:
            return process
        if process is not None:
            process.close()
        for attempt in range(STARTS):
            if self._stopping.wait(PAUSE_S if attempt else 0):
                return None
            try:
                return self._start_process(self._pickled, self._timeout_s)
            except (OSError, Gone) as error:
                log.warning("a decoding process did not start: %r", error)
        log.error("decoding processes do not start; the engine is no longer healthy")
        self._broken = True
        self._refuse(self._closed_reason())
        return None

    def _answer(self, job: Job, process: DecodingProcess) -> bool:
        """Decode the job's image; False if the process can no longer be used."""
        deadline = time.monotonic() + self._timeout_s
        with self._lock:
            self._running[job] = process, deadline
        if self._stopping.is_set():  # perhaps too late for stop() to find it there
            _fail(job, self._closed_reason())
        if job.result.done():
            return self._ended(job)
        try:
            made = process.decode(job.image, job.cost, deadline)
        except (InvalidImage, EngineFailure) as error:
            if error.__cause__ is not None:
                log.error("an image could not be decoded: %s", error.__cause__)  # noqa: TRY400  # that is the traceback
            usable = self._ended(job)
            _fail(job, error)
        except (TimeoutError, Gone) as end:
            self._ended(job)
            _fail(job, self._reason(end, job))
            usable = False
        else:
            usable = self._ended(job)
            _finish(job, made)
        return usable

    def _ended(self, job: Job) -> bool:
        """The process has no job; False if it may have been killed because this one was given up."""
        with self._lock:
            del self._running[job]
            return not job.result.cancelled()

    def _give_up(self, job: Job) -> None:
        self._queue.discard(job)
        with self._lock:
            if job in self._running:
                self._running[job][0].kill()

    def _refuse(self, error: EngineFailure) -> None:
        for job in self._queue.close():
            _fail(job, error)

    def _closed_reason(self) -> EngineFailure:
        return EngineClosed(BROKEN if self._broken else STOPPING)

    def _reason(self, end: TimeoutError | Gone, job: Job) -> VlmError:
        """Why a process had to be given up with its image."""
        if isinstance(end, TimeoutError) or end.code == -signal.SIGXCPU:
            return InvalidImage(
                f"The image takes more than {self._timeout_s:g} s to decode; save it anew as a PNG or a baseline JPEG, "
                "or send it with fewer pixels.",
                code="image_parse_error",
            )
        if not job.result.done():
            log.warning("a decoding process ended with exit code %s", end.code)
        if end.code in _NOT_BY_THE_IMAGE:
            return EngineLost("The process that decoded the image was ended from outside; send the request again.")
        return InvalidImage(
            "The image cannot be decoded: its decoder ended. Save it anew as a PNG or a baseline JPEG.",
            code="image_parse_error",
        )


def _finish(job: Job, made: ProcessedImage) -> None:
    try:
        job.result.set_result(made)
    except InvalidStateError:  # given up at this moment
        return


def _fail(job: Job, error: VlmError) -> None:
    try:
        job.result.set_exception(error.with_traceback(None))  # the traceback's frames would keep the image alive
    except InvalidStateError:
        return
