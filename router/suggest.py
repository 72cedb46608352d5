"""What a misspelt name was probably meant to be."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches


def did_you_mean(name: str, known: Collection[str], cutoff: float = 0.6) -> str:
    """`` Did you mean 'labels'?`` for a ``name`` that is close to a known one, else "".

    ``cutoff`` is the share of the letters of both, from 0 to 1, that must be the same and in the same order.
    """
    close = get_close_matches(name[:64], known, n=1, cutoff=cutoff)
    return f" Did you mean {close[0]!r}?" if close else ""
