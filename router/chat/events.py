"""Chunks as server-sent events, in the order that OpenAI's clients insist on.

Role first and once; then what was thought, if anything; then words; then one event with the reason for the end and,
once, the places; then usage if asked for; then ``[DONE]``. What goes wrong after the first byte is an event too. Knows
nothing of requests or of sending.
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
    usage_json,
)
from vlm.errors import VlmError
from vlm.types import Chunk, Completion

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventWriter:
    """Writes the events of one answer."""

    head: ResponseMeta
    shape: ResponseOptions
    include_usage: bool = False

    def opening(self) -> bytes:
        """The role, which comes once."""
        return self._choice({"role": "assistant", "content": ""})

    def pieces(self, chunk: Chunk) -> Iterator[bytes]:
        """The events that a chunk gives rise to."""
        yield from self._growth(chunk)
        if chunk.completion is not None:
            yield from self._closing(chunk.completion)

    def _growth(self, chunk: Chunk) -> Iterator[bytes]:
        """What a chunk adds, where words go out as they come; a thought always does, before the words."""
        words = chunk.text if self.shape.content == "answer" and _may_have_words(chunk) else ""
        said = logprobs_json(chunk.token_ids, chunk.logprobs, self.shape)
        if chunk.reasoning:  # apart from the words: many clients read one or the other
            yield self._choice(reasoning_json(chunk.reasoning), **({} if words else said))
        if words or (self.shape.logprobs and chunk.token_ids and not chunk.reasoning):
            yield self._choice({"content": words}, **said)

    def _closing(self, completion: Completion) -> Iterator[bytes]:
        """Everything from the last word on."""
        if self.shape.content != "answer" or not completion.has_text:
            yield self._choice({"content": content_of(completion, self.shape)})
        yield self._choice(
            {"grounding": grounding_of(completion, self.shape)},
            finish_reason=completion.finish_reason,
            beside={"x_gigarouter": extras_json(completion, self.head)},
        )
        if self.include_usage:
            yield event({**self._head(), "choices": [], "usage": usage_json(completion)})
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
        finish_reason: str | None = None,
        logprobs: Json | None = None,
        token_ids: list[int] | None = None,
        beside: Json | None = None,
    ) -> bytes:
        choice: Json = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        if token_ids is not None:
            choice["token_ids"] = token_ids
        return event({**self._head(), "choices": [choice], **(beside or {})})


def _may_have_words(chunk: Chunk) -> bool:
    return chunk.completion is None or chunk.completion.has_text
