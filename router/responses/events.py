"""Chunks as the events of a Response, in the order that OpenAI's clients insist on.

``response.created`` and ``response.in_progress`` first; then each item of the output, the reasoning before the message,
as it is added, as its only part grows, and as it is done; then the whole response in ``response.completed`` or
``response.incomplete``. An error after the first byte is ``response.failed``, for those who look at the response, and
then an ``error`` event, which makes OpenAI's SDKs raise it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from router.asgi.errors import error_body
from router.asgi.sse import named_event
from router.conversation.answer import ResponseOptions, content_of, early_text
from router.responses.response import (
    ResponseHead,
    answers_of,
    error_json,
    items_of,
    logprobs_of,
    open_message,
    open_reasoning,
    open_text,
    reasoning_item,
    reasoning_part,
    response_json,
    status_of,
)
from vlm.errors import VlmError
from vlm.types import Chunk, Completion

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Names:
    """What the events about an item's only part, and about its text, are called, and the key of the part's index."""

    part: str
    text: str
    index: str


_MESSAGE = _Names("content_part", "output_text", "content_index")
_REASONING = _Names("content_part", "reasoning_text", "content_index")
_SUMMARY = _Names("reasoning_summary_part", "reasoning_summary_text", "summary_index")


@dataclass(slots=True)
class _Item:
    """The item that is being sent.

    Attributes:
        names: The names of its events.
        index: Its position in the output.
        opened: The item before it has content.
        part: Its only part before it has a text.
        text: The text that has been sent.
    """

    names: _Names
    index: int
    opened: Json
    part: Json
    text: str = ""

    @property
    def where(self) -> Json:
        """Where its only part is."""
        return {"item_id": self.opened["id"], "output_index": self.index, self.names.index: 0}


class EventWriter:
    """Writes the events of one answer; see :class:`~router.asgi.format.EventWriter`.

    Remembers what it has sent: events are numbered, and an item's last events repeat its text.
    """

    def __init__(self, head: ResponseHead, options: ResponseOptions) -> None:
        self._response = head
        self._head = head.of_choice(0) if head.is_of_several else head  # of the items that are being sent
        self._options = options
        self._item: _Item | None = None
        self._items = 0
        self._events = 0
        self._unsent: list[Json] = []  # the log-probabilities of tokens that came without text, as special ones do

    def opening(self) -> bytes:
        """The response before anything is known of its answer."""
        begun = self._response.json("in_progress")
        return self._event("response.created", response=begun) + self._event("response.in_progress", response=begun)

    def events(self, chunk: Chunk) -> Iterator[bytes]:
        """The events of one chunk. Of several models the first one's text is sent as it grows; the others' follow."""
        for piece in chunk.choices or (chunk,):
            if piece.index == 0:
                yield from self._growing(piece)
        if chunk.completion is not None:
            yield from self._closing(chunk.completion)

    def failure(self, error: VlmError) -> bytes:
        """The error in both ways in which clients look for it."""
        failed = self._event("response.failed", response=self._response.json("failed", error=error_json(error)))
        body = error_body(error)
        told = {name: body["error"][name] for name in ("code", "message", "param")}
        return failed + self._event("error", **told, **body)

    def _growing(self, chunk: Chunk) -> Iterator[bytes]:
        self._unsent += logprobs_of(chunk, self._options)
        if chunk.reasoning:
            yield from self._grow(self._reasoning, chunk.reasoning)
        if text := early_text(chunk, self._options):
            yield from self._grow(_MESSAGE, text)

    def _closing(self, completion: Completion) -> Iterator[bytes]:
        """What has not been sent yet, and the last state of everything."""
        for head, answer in answers_of(completion, self._response):
            if head.choice:  # not the first one's, of which a part has been sent
                self._head, self._item, self._unsent = head, None, logprobs_of(answer, self._options)
            yield from self._closing_one(answer)
        response = response_json(completion, self._response, self._options)
        yield self._event(f"response.{status_of(completion)}", response=response)

    def _closing_one(self, answer: Completion) -> Iterator[bytes]:
        if self._item is None and answer.reasoning:
            yield from self._grow(self._reasoning, answer.reasoning)
        sent = self._item.text if self._item is not None and self._item.names is _MESSAGE else ""
        yield from self._grow(_MESSAGE, content_of(answer, self._options).removeprefix(sent))
        yield from self._done(items_of(self._head, answer, self._options)[-1])

    @property
    def _reasoning(self) -> _Names:
        return _SUMMARY if self._head.in_summary else _REASONING

    def _grow(self, names: _Names, delta: str) -> Iterator[bytes]:
        """Send more of an item's text; an item with other names, which came before it, is then done."""
        item = self._item
        if item is not None and item.names is not names:
            yield from self._done(reasoning_item(self._head, item.text))
        if item is None or item.names is not names:
            item = self._item = self._opened(names, self._items)
            self._items += 1
            yield self._event("response.output_item.added", output_index=item.index, item=item.opened)
            yield self._event(f"response.{names.part}.added", **item.where, part=item.part)
        item.text += delta
        logprobs = {"logprobs": self._taken()} if names is _MESSAGE else {}
        if delta or logprobs.get("logprobs"):
            yield self._event(f"response.{names.text}.delta", **item.where, delta=delta, **logprobs)

    def _opened(self, names: _Names, index: int) -> _Item:
        if names is _MESSAGE:
            return _Item(names, index, open_message(self._head), open_text())
        return _Item(names, index, open_reasoning(self._head), reasoning_part(self._head, ""))

    def _done(self, whole: Json) -> Iterator[bytes]:
        """The last events of the item that is being sent; ``whole`` is what has become of it."""
        assert self._item is not None
        names, where, [part] = self._item.names, self._item.where, whole.get("summary") or whole["content"]
        known = {name: part[name] for name in ("text", "logprobs") if name in part}
        yield self._event(f"response.{names.text}.done", **where, **known)
        yield self._event(f"response.{names.part}.done", **where, part=part)
        yield self._event("response.output_item.done", output_index=self._item.index, item=whole)

    def _taken(self) -> list[Json]:
        taken, self._unsent = self._unsent, []
        return taken

    def _event(self, kind: str, **body: Any) -> bytes:
        number, self._events = self._events, self._events + 1
        return named_event({"type": kind, "sequence_number": number, **body})
