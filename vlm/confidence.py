"""The score of an object: one number from the log-probabilities of the tokens that the model wrote for it.

Owns the definition; ``docs/scores.md`` describes its limits and how well it works. Knows no grammar: the parsers decide
which tokens belong to an object. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Logprobs = Sequence[float]
"""The log-probability of each token, nan for a token that the model did not choose; empty if they are not known."""


def score(location: Logprobs, label: Logprobs = ()) -> float | None:
    """The score of one object, in [0, 1]: its label's probability times the geometric mean of its location tokens'.

    The mean makes locations of two tokens and of twenty comparable, while the product over the label's tokens is the
    probability of the whole label. Tokens of a label that the model did not choose do not count.

    Args:
        location: Log-probabilities of the tokens of its location.
        label: Log-probabilities of the tokens of its label; empty if it has no label of its own.

    Returns:
        The score; None if the location has no tokens, or one that the model did not choose.
    """
    if not location:
        return None
    mean = sum(location) / len(location)
    named = sum(logprob for logprob in label if not math.isnan(logprob))
    return None if math.isnan(mean) else math.exp(min(0.0, mean + named))


def matching(token_ids: Sequence[int], logprobs: Logprobs) -> Logprobs:
    """``logprobs`` if there is one for each id; otherwise none, because it is not known which belongs to which id."""
    return logprobs if len(logprobs) == len(token_ids) else ()


def least(confidences: Sequence[float | None]) -> float | None:
    """The confidence that all of several objects or texts are right: the least of them, because a mean would hide it.

    None where one of them is not known, or there is none.
    """
    known = [one for one in confidences if one is not None]
    return min(known) if known and len(known) == len(confidences) else None
