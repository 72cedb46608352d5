"""Chunks as the server-sent events that Moondream's clients read.

A piece of the answer is ``{"chunk": ..., "completed": false}``, and the last event has ``completed: true``. Clients add
up whatever is in ``chunk``, so the reasoning has another name. They skip an event without ``chunk``, an error too, and
take the end of the stream for the end of the answer; what they do not accept is an event that is not JSON. So an error
is followed by such an event, for which they raise an exception.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from router.asgi.errors import error_body
from router.asgi.sse import event
from router.moondream.response import Answerer, reasoning_json, segment_json
from vlm.errors import VlmError
from vlm.types import Chunk, Completion

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TextEvents:
    """Writes the events of a caption or an answer; see :class:`~router.asgi.format.EventWriter`."""

    answerer: Answerer

    def opening(self) -> bytes:
        """Nothing: the first event has a part of the answer."""
        return b""

    def events(self, chunk: Chunk) -> Iterator[bytes]:
        """The events of one chunk."""
        if chunk.reasoning:
            yield self._event({"reasoning_chunk": chunk.reasoning})
        if chunk.text:
            yield self._event({"chunk": chunk.text})
        if chunk.completion is not None:
            yield self._last(chunk.completion)

    def failure(self, error: VlmError) -> bytes:
        """The error object, and what makes clients raise it."""
        return failure(error)

    def _event(self, body: Json, *, completed: bool = False) -> bytes:
        return event({**body, "completed": completed, "request_id": self.answerer.request_id})

    def _last(self, completion: Completion) -> bytes:
        reasoning = reasoning_json(completion.grounding)
        return self._event({"chunk": "", **reasoning, **self.answerer.cost(completion)}, completed=True)


@dataclass(frozen=True, slots=True)
class SegmentEvents:
    """Writes the events of a segmentation, which come all at once."""

    answerer: Answerer

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def events(self, chunk: Chunk) -> Iterator[bytes]:
        """The box, the path, and both once more as the final answer."""
        if chunk.completion is None:
            return
        found = segment_json(chunk.completion.grounding)
        request_id = {"request_id": self.answerer.request_id}
        yield event({"type": "bbox", "bbox": found["bbox"], **request_id})
        yield event({"type": "path_delta", "chunk": found["path"], "completed": False, **request_id})
        cost = self.answerer.cost(chunk.completion)
        yield event({"type": "final", **found, "completed": True, **request_id, **cost})

    def failure(self, error: VlmError) -> bytes:
        """The error object, and what makes clients raise it."""
        return failure(error)


def failure(error: VlmError) -> bytes:
    """The last events of a stream that cannot be continued; the second is on one line and no JSON."""
    words = " ".join(error.message.split())
    return event(error_body(error)) + f"data: [ERROR] {words}\n\n".encode(errors="replace")
