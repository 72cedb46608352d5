"""Parts that a family's ``checks.py`` is made of: each checks one property of a tokenizer and returns a Finding.

They serve any model: a family passes the tokens that it expects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tokenizers import Tokenizer

State = Literal["ok", "note", "FAILED", "skipped"]

_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a verification.

    Attributes:
        check: What was checked, in one or two words (``"special tokens"``).
        state: "note" for a fault that does not matter to serving; "skipped" if it could not be checked, and the detail
            says why.
        detail: What was found; for a failure, also what to do.
    """

    check: str
    state: State
    detail: str

    @classmethod
    def of(cls, check: str, faults: Sequence[str], fine: str, advice: str = "") -> Finding:
        """FAILED with the first few ``faults`` and ``advice`` on what to do, or ok with the detail ``fine``."""
        if not faults:
            return cls(check, "ok", fine)
        return cls(check, "FAILED", " ".join((f"{some(faults, '; ')}.", advice)).strip())


def some(names: Sequence[str], separator: str = ", ") -> str:
    """The first few names, and the number of the others."""
    shown = separator.join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN:,} more"


SENTENCE = "a red circle left of a blue square"
"""A text that every vocabulary can encode, also the small ones of the bundled miniatures."""

_FETCH = "Fetch tokenizer.json of the same revision as the weights."


def special_tokens(tokenizer: Tokenizer, expected: Mapping[str, int]) -> Finding:
    """Check that each token has the id with which the weights were trained."""
    faults = [
        f"{token} is {_shown(tokenizer.token_to_id(token))}, expected {wanted}"
        for token, wanted in expected.items()
        if tokenizer.token_to_id(token) != wanted
    ]
    fine = some([f"{token} {wanted}" for token, wanted in expected.items()])
    return Finding.of("special tokens", faults, fine, _FETCH)


def vocabulary(entries: int, rows: int, spare: int) -> Finding:
    """Check that so many ``entries`` fill the ``rows`` of the embedding matrix, with at most ``spare`` rows left."""
    faults = (
        [] if 0 <= rows - entries <= spare else [f"{entries:,} ids do not fit an embedding matrix of {rows:,} rows"]
    )
    return Finding.of("vocabulary", faults, f"{entries:,} ids, {rows:,} rows in the embedding matrix", _FETCH)


def added_tokens(tokenizer: Tokenizer, tokens: Sequence[str], rows: int, spare: int = 0) -> Iterator[Finding]:
    """Check that the ``tokens`` that a family adds have consecutive ids, up to the end of the embedding matrix."""
    found = [known for token in tokens if (known := tokenizer.token_to_id(token)) is not None]
    faults = [f"{len(tokens) - len(found)} of {len(tokens)} are missing"] if len(found) < len(tokens) else []
    if found and found != [*range(found[0], found[0] + len(found))]:
        faults.append("their ids are not consecutive")
    yield Finding.of("added tokens", faults, f"{len(tokens):,} from {found[0] if found else None}", _FETCH)
    yield vocabulary(max(found, default=0) + 1, rows, spare)


def round_trip(encode: Callable[[str], Sequence[int]], decode: Callable[[Sequence[int]], str]) -> Finding:
    """Check that a sentence survives encoding and decoding."""
    ids = encode(SENTENCE)
    decoded = decode(ids)
    faults = [] if decoded.strip() == SENTENCE else [f"{SENTENCE!r} came back as {decoded!r}"]
    return Finding.of("round trip", faults, f"{SENTENCE!r} is {len(ids)} tokens, and comes back", _FETCH)


def _shown(token_id: int | None) -> str:
    return "missing" if token_id is None else str(token_id)
