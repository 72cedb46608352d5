"""Finds the tokens that would repeat an n-gram. Pure Python: the host knows all ids, so the device need not search."""

from __future__ import annotations


def repeating(ids: list[int], size: int) -> list[int]:
    """The tokens with which ``ids`` would repeat one of their n-grams of ``size``, at least 1.

    They are what follows each earlier occurrence of the last ``size - 1`` ids; a token may be there several times.
    """
    if len(ids) < size or size == 1:
        return ids if size == 1 else []
    context = ids[len(ids) - size + 1 :]
    ends = _occurrences(ids, context[-1], size - 2)
    return [ids[end + 1] for end in ends if ids[end + 2 - size : end + 1] == context]


def _occurrences(ids: list[int], last: int, start: int) -> list[int]:
    """Where ``last``, with which ``ids`` end, is from ``start`` on and before their end."""
    found, at = [], ids.index(last, start)
    while at < len(ids) - 1:
        found.append(at)
        at = ids.index(last, at + 1)  # far faster than a loop over the ids
    return found
