"""Chunks as chat's server-sent events, in the order that OpenAI's clients insist on.

The role of each choice first and once, in the order of their indexes; then the reasoning, if any; then the text; then
for each choice one event with the finish reason and, once, the grounding; then usage if requested; then ``[DONE]``. An
error after the first byte is an event too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from router.asgi.errors import error_body
from router.asgi.sse import DONE, event
from router.chat.response import ChatHead, choices_of, reasoning_json, usage_json
from router.conversation.answer import (
    ResponseOptions,
    content_of,
    early_text,
    extras_json,
    found_json,
    logprobs_json,
)
from vlm.errors import VlmError
from vlm.types import Chunk, Completion

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventWriter:
    """Writes the events of one answer; see :class:`~router.asgi.format.EventWriter`."""

    head: ChatHead
    options: ResponseOptions
    include_usage: bool = False
    n: int = 1

    def opening(self) -> bytes:
        """The role of each choice, which is sent once."""
        return b"".join(self._choice({"role": "assistant", "content": ""}, index=index) for index in range(self.n))

    def events(self, chunk: Chunk) -> Iterator[bytes]:
        """The events of one chunk."""
        for piece in chunk.choices or (chunk,):
            yield from self._deltas(piece)
        if chunk.completion is not None:
            yield from self._closing(chunk.completion)

    def _deltas(self, chunk: Chunk) -> Iterator[bytes]:
        """What a chunk adds: always its reasoning; its text only where the content is text that may be sent early."""
        text = early_text(chunk, self.options)
        logprobs = logprobs_json(chunk, self.options)
        if chunk.reasoning:  # an event of its own: many clients read only one of the two from each event
            yield self._choice(reasoning_json(chunk.reasoning), index=chunk.index, **({} if text else logprobs))
        if text or (self.options.logprobs and chunk.token_ids and not chunk.reasoning):
            yield self._choice({"content": text}, index=chunk.index, **logprobs)

    def _closing(self, completion: Completion) -> Iterator[bytes]:
        """Everything after the last piece of text."""
        choices = choices_of(completion)
        for index, one in enumerate(choices):
            if self.options.content != "answer" or not one.has_text:
                yield self._choice({"content": content_of(one, self.options)}, index=index)
            last = index + 1 == len(choices)
            yield self._choice(
                found_json(one, self.options),
                index=index,
                finish_reason=one.finish_reason,
                beside={"x_gigarouter": extras_json(completion, self.head.meta)} if last else None,
            )
        if self.include_usage:
            yield event({**self._head(), "choices": [], "usage": usage_json(completion, self.head.meta)})
        yield DONE

    def failure(self, error: VlmError) -> bytes:
        """The error object, as the last event."""
        return event(error_body(error))

    def _head(self) -> Json:
        usage = {"usage": None} if self.include_usage else {}
        return {**self.head.json("chat.completion.chunk"), **usage}

    def _choice(
        self,
        delta: Json,
        *,
        index: int = 0,
        finish_reason: str | None = None,
        logprobs: Json | None = None,
        token_ids: list[int] | None = None,
        beside: Json | None = None,
    ) -> bytes:
        choice: Json = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        if token_ids is not None:
            choice["token_ids"] = token_ids
        if finish_reason is not None:
            choice.update(self.head.of_choice(index))
        return event({**self._head(), "choices": [choice], **(beside or {})})
