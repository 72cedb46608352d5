"""What a misspelt name was probably meant to be."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches


def did_you_mean(name: str, known: Collection[str]) -> str:
    """`` Did you mean 'labels'?`` for a ``name`` that is close to a known one, else ""."""
    close = get_close_matches(name[:64], known, n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""
