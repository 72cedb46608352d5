"""The text of one answer as it grows: first what the model reasons, if it does, then what it answers. Pure Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlm.engine.detokenizer import Detokenizer
from vlm.models.processor import Inputs


@dataclass(frozen=True, slots=True)
class TextDelta:
    """What has become certain since the last one: more of the answer's text, or of the reasoning before it."""

    text: str = ""
    reasoning: str = ""

    def __add__(self, later: TextDelta) -> TextDelta:
        """This delta followed by a later one."""
        return TextDelta(self.text + later.text, self.reasoning + later.reasoning)

    def __bool__(self) -> bool:
        """Whether there is any new text."""
        return bool(self.text or self.reasoning)


NOTHING = TextDelta()
"""The delta of a token that makes no text certain."""


class OutputText:
    """The growing text of one answer.

    Tokens up to ``Inputs.reasoning_end_id`` are reasoning, the others are the answer. An answer that is geometry alone
    has no text.

    Attributes:
        in_answer: Whether the next token belongs to the answer rather than to the reasoning before it.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        inputs: Inputs,
        stop: tuple[str, ...] = (),
        *,
        stream: bool = True,
    ) -> None:
        """Start with the end of the prompt that the text repeats (:attr:`Inputs.echo`).

        Args:
            decode: Token ids to text, without special tokens.
            inputs: The request's.
            stop: Strings before which the answer ends.
            stream: Whether the text is needed as it grows. Otherwise it is made at the end, or to find stop strings,
                and there is no reasoning: parsing reads that from the tokens in any case.
        """
        echo = inputs.prompt_ids[len(inputs.prompt_ids) - inputs.echo :]
        self.in_answer = inputs.reasoning_end_id is None
        self._reasoning_end_id = inputs.reasoning_end_id
        self._has_text = inputs.has_text
        self._grows = inputs.has_text and (stream or bool(stop))
        self._answer = Detokenizer(decode, echo, stop)
        # The reasoning is not stripped, because spans point into it.
        self._reasoning = None if self.in_answer or not stream else Detokenizer(decode, strip=False)
        self._reported = 0

    @property
    def text(self) -> str:
        """The answer's text so far."""
        return self._answer.text

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the answer."""
        return self._answer.stopped

    def append(self, token: int) -> TextDelta:
        """Add a token; returns the text that has become certain."""
        if self.in_answer:
            if self._grows:
                return TextDelta(self._answer.push(token))
            self._answer.hold(token)
            return NOTHING
        self.in_answer = token == self._reasoning_end_id
        if self._reasoning is None:
            return NOTHING
        return TextDelta(reasoning=self._reasoning.finish() if self.in_answer else self._reasoning.push(token))

    def finish(self) -> TextDelta:
        """End the text; returns the rest of it, with an unfinished character as U+FFFD."""
        reasoning = "" if self._reasoning is None or self.in_answer else self._reasoning.finish()
        return TextDelta(self._answer.finish() if self._has_text else "", reasoning)

    def report(self, tokens: int) -> int:
        """Note that chunks carry the first ``tokens`` tokens from now on; returns how many they carried before."""
        before, self._reported = self._reported, tokens
        return before
