"""What families check about their tokenizers, in parts to compose. Knows no model, and not what a token means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tokenizers import Tokenizer

State = Literal["ok", "FAILED", "skipped"]

_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a verification.

    Attributes:
        check: What was looked at, in one or two words (``"special tokens"``).
        state: "skipped" where nothing could be said; the detail tells why.
        detail: What was found; of a failure, also what to do.
    """

    check: str
    state: State
    detail: str

    @classmethod
    def of(cls, check: str, faults: Sequence[str], fine: str, advice: str = "") -> Finding:
        """FAILED with the first few of ``faults`` and what to do about them, or ok with ``fine`` if there are none."""
        if not faults:
            return cls(check, "ok", fine)
        return cls(check, "FAILED", " ".join((f"{some(faults, '; ')}.", advice)).strip())


def some(names: Sequence[str], joint: str = ", ") -> str:
    """The first few of many, and how many more there are."""
    shown = joint.join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN:,} more"


SENTENCE = "a red circle left of a blue square"
"""Words that every vocabulary can spell, the miniatures' included."""

_FETCH = "Fetch tokenizer.json of the same revision as the weights."


def special_tokens(tokenizer: Tokenizer, expected: Mapping[str, int]) -> Finding:
    """Whether each token stands at the id that the weights know it by."""
    faults = [
        f"{token} is {_named(tokenizer.token_to_id(token))}, expected {place}"
        for token, place in expected.items()
        if tokenizer.token_to_id(token) != place
    ]
    fine = some([f"{token} {place}" for token, place in expected.items()])
    return Finding.of("special tokens", faults, fine, _FETCH)


def vocabulary(entries: int, rows: int, spare: int) -> Finding:
    """Whether the ids up to ``entries`` fill the embedding matrix, at most ``spare`` rows left over."""
    faults = [] if 0 <= rows - entries <= spare else [f"{entries:,} ids do not belong to a matrix of {rows:,} rows"]
    return Finding.of("vocabulary", faults, f"{entries:,} ids, {rows:,} rows in the embedding matrix", _FETCH)


def added_tokens(tokenizer: Tokenizer, tokens: Sequence[str], rows: int, spare: int = 0) -> Iterator[Finding]:
    """Whether what a family added to its vocabulary stands in order, at the end of the embedding matrix."""
    found = [place for token in tokens if (place := tokenizer.token_to_id(token)) is not None]
    faults = [f"{len(tokens) - len(found)} of {len(tokens)} are missing"] if len(found) < len(tokens) else []
    if found and found != [*range(found[0], found[0] + len(found))]:
        faults.append("their ids do not follow one another")
    yield Finding.of("added tokens", faults, f"{len(tokens):,} from {found[0] if found else None}", _FETCH)
    yield vocabulary(max(found, default=0) + 1, rows, spare)


def round_trip(encode: Callable[[str], Sequence[int]], decode: Callable[[Sequence[int]], str]) -> Finding:
    """Whether a sentence comes back from its ids."""
    ids = encode(SENTENCE)
    back = decode(ids)
    faults = [] if back.strip() == SENTENCE else [f"{SENTENCE!r} came back as {back!r}"]
    return Finding.of("round trip", faults, f"{SENTENCE!r} is {len(ids)} tokens, and comes back", _FETCH)


def _named(place: int | None) -> str:
    return "missing" if place is None else str(place)
