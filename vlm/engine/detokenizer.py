"""Turns token ids into text one by one: never half a character, and nothing that a stop string may yet cut off.

The pieces joined are the text of all ids decoded at once, stripped if wanted and cut before the first stop string. Pure
Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """The growing text of one answer.

    A token's text may depend on its neighbours (a byte-level token holds part of a character, a word piece attaches to
    the one before), so each new token is decoded together with the last settled piece, whose own text is cut off::

        ids    [0, window)    [window, settled)    [settled, end)
               in the text    in the text, and     not yet in the text: may be part of a character
                              context of the next

    The cost of a token does not depend on the length of the answer.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        echo: Sequence[int] = (),
        stop: tuple[str, ...] = (),
        *,
        strip: bool = True,
    ) -> None:
        """Start a text.

        Args:
            decode: Token ids to text, without special tokens.
            echo: Ids that the text begins with.
            stop: Strings before which the text ends.
            strip: Whether to strip spaces around the text.
        """
        self._decode = decode
        self._strip = strip
        self._ids = list(echo)
        self._stop = stop
        self._settled = 0
        self._window = 0
        self._text = ""
        self._sent = 0
        self.stopped = False
        self._settle()
        self._searched_from = len(self._text)  # a stop string in the echoed prompt does not end the answer

    @property
    def text(self) -> str:
        """All text so far, stripped if wanted; after :meth:`finish`, the whole text."""
        return self._stripped(self._text)

    def push(self, token: int) -> str:
        """Add a token; returns the text that has become certain, often ""."""
        self._ids.append(token)
        self._settle()
        self._cut()
        return self._emit(len(self.text) if self.stopped else self._certain())

    def hold(self, token: int) -> None:
        """Add a token whose text nobody needs before :meth:`finish`, which then decodes all such tokens at once."""
        self._ids.append(token)

    def finish(self) -> str:
        """End the text; returns the rest of it, with an unfinished character as U+FFFD."""
        if not self.stopped:
            self._text += self._fresh()
            self._settled = len(self._ids)
            self._cut()
        return self._emit(len(self.text))

    def _fresh(self) -> str:
        before = self._decode(self._ids[self._window : self._settled])
        return self._decode(self._ids[self._window :])[len(before) :]

    def _settle(self) -> None:
        fresh = self._fresh()
        if fresh and not fresh.endswith(_INCOMPLETE):
            self._text += fresh
            self._window, self._settled = self._settled, len(self._ids)

    def _cut(self) -> None:
        found = [at for stop in self._stop if (at := self._text.find(stop, self._searched_from)) >= 0]
        if found:
            self._text = self._text[: min(found)]
            self.stopped = True

    def _certain(self) -> int:
        """Length of the part of the text that no later token can change."""
        text = self.text
        held = max((_overlap(self._text, stop) for stop in self._stop), default=0)
        certain = self._stripped(self._text[: len(self._text) - held]) if held else text
        return min(len(certain), len(text))

    def _stripped(self, text: str) -> str:
        return text.strip() if self._strip else text

    def _emit(self, upto: int) -> str:
        piece = self.text[self._sent : upto]
        self._sent = max(self._sent, upto)
        return piece


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` with which ``stop`` begins."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
