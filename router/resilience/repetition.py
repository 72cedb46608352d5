"""An answer that is generated again: what the client has of it is checked and dropped, and the rest goes on from there.

Pure Python. Two attempts at an answer give the same tokens and the same text, but may cut them into other chunks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vlm.types import Chunk


class NotRepeatableError(Exception):
    """An attempt gives another answer than the one of which the client has a part."""


@dataclass(frozen=True, slots=True)
class _Length:
    """How long a part of an answer is."""

    tokens: int = 0
    reasoning: int = 0
    text: int = 0

    def plus(self, chunk: Chunk) -> _Length:
        return _Length(
            self.tokens + len(chunk.token_ids), self.reasoning + len(chunk.reasoning), self.text + len(chunk.text)
        )

    def reaches(self, other: _Length) -> bool:
        """Whether it is at least as long as ``other`` in every respect."""
        return self.tokens >= other.tokens and self.reasoning >= other.reasoning and self.text >= other.text


class _Part:
    """What the client has of one answer, and how much of it the present attempt has given."""

    def __init__(self) -> None:
        self._token_ids: list[int] = []
        self._reasoning = ""
        self._text = ""
        self._sent = _Length()
        self._given = _Length()

    @property
    def behind(self) -> bool:
        """Whether the client has more than the attempt has given."""
        return not self._given.reaches(self._sent)

    def add(self, token_ids: Sequence[int], reasoning: str, text: str) -> None:
        """This is sent, too."""
        self._token_ids += token_ids
        self._reasoning += reasoning
        self._text += text
        self._sent = _Length(len(self._token_ids), len(self._reasoning), len(self._text))

    def begin_again(self) -> None:
        """Another attempt begins."""
        self._given = _Length()

    def rest_of(self, chunk: Chunk) -> Chunk:
        """What of the attempt's next chunk the client does not have; it may be nothing.

        Raises:
            NotRepeatableError: The chunk is not what the client has.
        """
        rest = self._unsent(chunk) if self.behind else chunk
        self._given = self._given.plus(chunk)
        if rest.token_ids or rest.reasoning or rest.text:
            if not self._given.reaches(self._sent):  # tokens and text grow together, so one cannot be ahead alone
                raise NotRepeatableError
            self.add(rest.token_ids, rest.reasoning, rest.text)
        return rest

    def _unsent(self, chunk: Chunk) -> Chunk:
        """``chunk`` without its beginning, which has been sent."""
        at, sent = self._given, self._sent
        tokens = min(len(chunk.token_ids), sent.tokens - at.tokens)
        reasoning = min(len(chunk.reasoning), sent.reasoning - at.reasoning)
        text = min(len(chunk.text), sent.text - at.text)
        if (
            list(chunk.token_ids[:tokens]) != self._token_ids[at.tokens : at.tokens + tokens]
            or not self._reasoning.startswith(chunk.reasoning[:reasoning], at.reasoning)
            or not self._text.startswith(chunk.text[:text], at.text)
        ):
            raise NotRepeatableError
        return replace(
            chunk,
            text=chunk.text[text:],
            token_ids=chunk.token_ids[tokens:],
            logprobs=chunk.logprobs[tokens:],
            reasoning=chunk.reasoning[reasoning:],
            token_bytes=chunk.token_bytes[tokens:],
            top_logprobs=chunk.top_logprobs[tokens:],
        )


class Repetition:
    """One answer, or several choices of one, over all attempts at it.

    Keeps the token ids and the text that the client has, and nothing else of the chunks.
    """

    def __init__(self) -> None:
        self._first: list[tuple[int, tuple[int, ...], str, str]] = []  # of the first attempt, most often the only one
        self._parts: defaultdict[int, _Part] = defaultdict(_Part)
        self._repeats = False

    @property
    def started(self) -> bool:
        """Whether the client has anything."""
        return bool(self._first or self._parts)

    @property
    def behind(self) -> bool:
        """Whether the client has more than the present attempt has given."""
        return self._repeats and any(part.behind for part in self._parts.values())

    def begin_again(self) -> None:
        """Another attempt begins."""
        self._repeats = self.started
        for index, token_ids, reasoning, text in self._first:
            self._parts[index].add(token_ids, reasoning, text)
        self._first.clear()
        for part in self._parts.values():
            part.begin_again()

    def rest_of(self, chunk: Chunk) -> Chunk | None:
        """What of the attempt's next chunk is to be sent, or None if nothing is.

        Raises:
            NotRepeatableError: The attempt gives another answer, or ends before it has given what was sent.
        """
        if not self._repeats:
            for piece in chunk.choices or (chunk,):
                self._first.append((piece.index, piece.token_ids, piece.reasoning, piece.text))
            return chunk
        pieces = tuple(self._parts[piece.index].rest_of(piece) for piece in chunk.choices)
        rest = chunk if pieces else self._parts[0].rest_of(chunk)
        if chunk.completion is not None and self.behind:
            raise NotRepeatableError
        left = replace(rest, choices=tuple(piece for piece in pieces if piece != Chunk(index=piece.index)))
        return None if left == Chunk(index=left.index) else left
