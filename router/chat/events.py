"""Chunks as chat's server-sent events, in the order that OpenAI's clients insist on.

The role first and once; then the reasoning, if any; then the text; then one event with the finish reason and, once, the
grounding; then usage if requested; then ``[DONE]``. An error after the first byte is an event too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from router.asgi.errors import error_body
from router.asgi.sse import DONE, event
from router.chat.response import (
    ResponseMeta,
    ResponseOptions,
    content_of,
    extras_json,
    grounding_of,
    logprobs_json,
    reasoning_json,
    rendered_json,
    usage_json,
)
from vlm.errors import VlmError
from vlm.types import Chunk, Completion

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventWriter:
    """Writes the events of one answer; see :class:`~router.asgi.format.EventWriter`."""

    meta: ResponseMeta
    options: ResponseOptions
    include_usage: bool = False

    def opening(self) -> bytes:
        """The role, which is sent once."""
        return self._choice({"role": "assistant", "content": ""})

    def events(self, chunk: Chunk) -> Iterator[bytes]:
        """The events of one chunk."""
        yield from self._deltas(chunk)
        if chunk.completion is not None:
            yield from self._closing(chunk.completion)

    def _deltas(self, chunk: Chunk) -> Iterator[bytes]:
        """What a chunk adds: always its reasoning; its text only where the content is text that may be sent early."""
        text = chunk.text if self.options.content == "answer" and _may_have_text(chunk) else ""
        logprobs = logprobs_json(chunk.token_ids, chunk.logprobs, self.options)
        if chunk.reasoning:  # an event of its own: many clients read only one of the two from each event
            yield self._choice(reasoning_json(chunk.reasoning), **({} if text else logprobs))
        if text or (self.options.logprobs and chunk.token_ids and not chunk.reasoning):
            yield self._choice({"content": text}, **logprobs)

    def _closing(self, completion: Completion) -> Iterator[bytes]:
        """Everything after the last piece of text."""
        if self.options.content != "answer" or not completion.has_text:
            yield self._choice({"content": content_of(completion, self.options)})
        yield self._choice(
            {"grounding": grounding_of(completion, self.options), **rendered_json(completion, self.options)},
            finish_reason=completion.finish_reason,
            beside={"x_gigarouter": extras_json(completion, self.meta)},
        )
        if self.include_usage:
            yield event({**self._head(), "choices": [], "usage": usage_json(completion)})
        yield DONE

    def failure(self, error: VlmError) -> bytes:
        """The error object, as the last event."""
        return event(error_body(error))

    def _head(self) -> Json:
        usage = {"usage": None} if self.include_usage else {}
        return {**self.meta.json("chat.completion.chunk"), **usage}

    def _choice(
        self,
        delta: Json,
        *,
        finish_reason: str | None = None,
        logprobs: Json | None = None,
        token_ids: list[int] | None = None,
        beside: Json | None = None,
    ) -> bytes:
        choice: Json = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        if token_ids is not None:
            choice["token_ids"] = token_ids
        return event({**self._head(), "choices": [choice], **(beside or {})})


def _may_have_text(chunk: Chunk) -> bool:
    return chunk.completion is None or chunk.completion.has_text
