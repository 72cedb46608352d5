"""The ``x-ratelimit-*`` headers of answers, spelled as OpenAI spells them.

Of the limits that hold for a request, they tell of the one of which the least is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from router.accounts.counter import Decision, Part, Standing


def rate_headers(parts: Sequence[Part], decision: Decision) -> dict[str, str]:
    """The headers for requests and tokens, as far as there are limits: what they are, what is left, and until when.

    ``reset`` is the time until nothing counts any more, so that all of the limit is free again.
    """
    pairs = list(zip(parts, decision.standings, strict=True))
    return {**_headers("requests", _requests(pairs)), **_headers("tokens", _tokens(pairs))}


def _headers(kind: str, states: Iterator[tuple[int, int, int]]) -> dict[str, str]:
    found = min(states, default=None)
    if found is None:
        return {}
    left, limit, empty_in_ms = found
    return {
        f"x-ratelimit-limit-{kind}": str(limit),
        f"x-ratelimit-remaining-{kind}": str(left),
        f"x-ratelimit-reset-{kind}": spelled(empty_in_ms),
    }


def _requests(pairs: Sequence[tuple[Part, Standing]]) -> Iterator[tuple[int, int, int]]:
    for part, standing in pairs:
        if (limit := part.limits.requests) is not None:
            yield max(0, limit - standing.used.requests), limit, standing.empty_in.requests


def _tokens(pairs: Sequence[tuple[Part, Standing]]) -> Iterator[tuple[int, int, int]]:
    for part, standing in pairs:
        if (limit := part.limits.tokens) is not None:
            yield max(0, limit - standing.used.tokens), limit, standing.empty_in.tokens


def spelled(duration_ms: int) -> str:
    """A duration as ``120ms``, ``1s``, ``8.64s``, ``6m0s`` or ``1h0m0s``."""
    if 0 < duration_ms < 1000:
        return f"{duration_ms}ms"
    minutes, rest_ms = divmod(duration_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest_ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds
