"""What each request used, reported once when it ends: the hook for accounts and metrics.

Knows how a request ended and what was generated until then; does not know prices, accounts or formats.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Scope

from router.asgi.billing import Outcome
from router.asgi.chunks import UNFINISHED
from router.asgi.format import BuiltRequest
from router.charges import tasks_of
from vlm.errors import DeadlineExceeded, VlmError
from vlm.types import Chunk, Completion, Request, Timings, Usage

UNREAD_S = 1.0
"""Who lets parts of an answer wait for longer than this, all together, has not read it in time."""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """How one request ended.

    Attributes:
        request_id: The id in the response's headers.
        outcome: ``completed``: the model answered in full; ``failed``: ``error`` says why; ``abandoned``: the client
            left, or the server stopped, before the answer was complete.
        model: Canonical name, as far as the request was read; None where it was not. It need not be that of a model
            that is served.
        tasks: Canonical names: those that were answered, else those that the request named. Empty if the
            request named none and was not answered.
        usage: Tokens read and written; known only once the model has answered in full.
        generated_tokens: Tokens that had arrived here when the request ended; an answer that is not streamed arrives
            in one piece.
        error: Why a request failed; the bare VlmError for a fault of the server.
        read_s: Seconds until the request was read, its images included; None where it never was. This and the other
            times begin when the body has arrived: how fast a client sends is its own affair.
        first_chunk_s: Seconds until the first part of the answer arrived; None where none did.
        total_s: Seconds until the request ended.
        images: Number of its images; 0 where it was not read to its end.
        streamed: Whether its answer streams.
        timings: What the engine measured; known only once the model has answered in full.
        per_token_s: Seconds between two tokens of an answer, on average from its first part to its last, whoever was
            slow to read them; None where all tokens came in one part, or the model has not answered in full.
        asked_s, admitted_s: Seconds until it was known what is asked of which model, and until the request was let in;
            None where it never was.
    """

    request_id: str
    outcome: Outcome
    model: str | None
    tasks: tuple[str, ...]
    usage: Usage | None
    generated_tokens: int
    error: VlmError | None
    read_s: float | None
    first_chunk_s: float | None
    total_s: float
    images: int = 0
    streamed: bool = False
    timings: Timings | None = None
    per_token_s: float | None = None
    asked_s: float | None = None
    admitted_s: float | None = None


class Meter(Protocol):
    """Learns of every request that an endpoint was given, exactly once, whatever becomes of it."""

    def __call__(self, scope: Scope, record: RequestRecord) -> None:
        """``scope`` is the request's ASGI scope, in which middleware can leave the account. Must not block or raise."""
        ...


def ignore(scope: Scope, record: RequestRecord) -> None:
    """The meter of a router that keeps no account."""


def both(first: Meter, second: Meter) -> Meter:
    """A meter that tells two."""

    def tell(scope: Scope, record: RequestRecord) -> None:
        first(scope, record)
        second(scope, record)

    return second if first is ignore else tell


class Tally:
    """Watches one request and its answer, and makes the record of it."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._began = time.perf_counter()
        self._model: str | None = None
        self._built: BuiltRequest | None = None
        self._completion: Completion | None = None
        self._error: VlmError | None = None
        self._generated_tokens = 0
        self._later_tokens = 0  # than those of the first chunk
        self._last_token_s = 0.0
        self._read_s: float | None = None
        self._asked_s: float | None = None
        self._admitted_s: float | None = None
        self._first_chunk_s: float | None = None
        self._unread_s = 0.0

    @property
    def paid_as(self) -> Outcome:
        """How it ended, for its bill: who has not read what was there until the deadline is like one who has left."""
        late = isinstance(self._error, DeadlineExceeded) and self._unread_s > UNREAD_S
        return "abandoned" if late else self._outcome()

    def waited_for_client(self, seconds: float) -> None:
        """A part of the answer could not be sent for so long, because the client did not read those before."""
        self._unread_s += seconds

    def let_in(self) -> None:
        """The request is let in, or of several models the first has let it in."""
        if self._admitted_s is None:
            self._admitted_s = self._elapsed_s()

    def asks(self, model: str) -> None:
        """The request is for this model, and its images are still to be read."""
        self._model = model
        self._asked_s = self._elapsed_s()

    def read(self, built: BuiltRequest) -> None:
        """The request has been read; once more for each further model that is asked, which changes nothing."""
        self._built = built
        if self._read_s is None:
            self._read_s = self._elapsed_s()

    def failed(self, error: VlmError) -> None:
        """The request ends with ``error``."""
        self._error = error

    async def watched(self, chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
        """The same chunks, and their error; closes them in any case."""
        async with aclosing(chunks):
            try:
                async for chunk in chunks:
                    self._count(chunk)
                    yield chunk
            except VlmError as error:
                self.failed(error)
                raise
            if self._completion is None:
                self.failed(UNFINISHED)

    def record(self) -> RequestRecord:
        """The record as of now. An answer for which nothing was let in is of no model, so it has no times or tokens."""
        measured = self._completion if self._admitted_s is not None else None
        return RequestRecord(
            request_id=self._request_id,
            outcome=self._outcome(),
            model=self._model if self._built is None else self._built.model,  # of several, who gave it is known now
            tasks=self._tasks(),
            usage=None if measured is None else measured.usage,
            generated_tokens=self._generated_tokens,
            error=self._error,
            read_s=self._read_s,
            first_chunk_s=self._first_chunk_s,
            total_s=self._elapsed_s(),
            images=0 if self._built is None else images_of(self._built.request),
            streamed=self._built is not None and self._built.stream,
            timings=None if measured is None else measured.timings,
            per_token_s=self._per_token_s(),
            asked_s=self._asked_s,
            admitted_s=self._admitted_s,
        )

    def _count(self, chunk: Chunk) -> None:
        tokens = tokens_of(chunk)
        self._generated_tokens += tokens
        if self._first_chunk_s is None:
            self._first_chunk_s = self._elapsed_s()
        elif tokens:
            self._later_tokens += tokens
            self._last_token_s = self._elapsed_s()
        if chunk.completion is not None:
            self._completion = chunk.completion

    def _per_token_s(self) -> float | None:
        """Several answers to one request grow side by side, each with its part of the tokens."""
        if self._completion is None or self._first_chunk_s is None or not self._later_tokens:
            return None
        answers = max(1, len(self._completion.choices))
        return (self._last_token_s - self._first_chunk_s) * answers / self._later_tokens

    def _outcome(self) -> Outcome:
        if self._error is not None:
            return "failed"
        return "abandoned" if self._completion is None else "completed"

    def _tasks(self) -> tuple[str, ...]:
        if self._completion is not None:
            return tasks_of(self._completion)
        return () if self._built is None else named_tasks(self._built.request)

    def _elapsed_s(self) -> float:
        return time.perf_counter() - self._began


def tokens_of(chunk: Chunk) -> int:
    """Number of tokens that a chunk brings."""
    return sum(len(one.token_ids) for one in (chunk, *chunk.choices))


def images_of(request: Request) -> int:
    """Number of images."""
    return (request.image is not None) + len(request.images)


def named_tasks(request: Request) -> tuple[str, ...]:
    """The canonical names of the tasks that a request names; a task that only its prompt implies is not among them."""
    tasks = request.tasks or (() if request.task is None else (request.task,))
    return tuple(task.name for task in tasks)
