"""The score of an object: one number from the log-probabilities of the tokens that the model generated for it.

Owns the definition; ``docs/scores.md`` has its limits and what was measured. Parsers decide which tokens
belong to an object. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Logprobs = Sequence[float]
"""Raw log-probability of each token, nan for one that was forced; empty if none are known."""


def score(location: Logprobs, label: Logprobs = ()) -> float | None:
    """The score of one object, in [0, 1]: its label's probability times the geometric mean of its location tokens'.

    The mean makes locations of two tokens and of twenty comparable; the product of the label is the probability of the
    whole label. Label tokens that were forced are left out.

    Args:
        location: Of the tokens of its location.
        label: Of the tokens of its label; empty if it has none.

    Returns:
        None if the location's probability is not known: it has no tokens, or one of them was forced.
    """
    if not location:
        return None
    mean = sum(location) / len(location)
    named = sum(logprob for logprob in label if not math.isnan(logprob))
    return None if math.isnan(mean) else math.exp(min(0.0, mean + named))


def matching(token_ids: Sequence[int], logprobs: Logprobs) -> Logprobs:
    """``logprobs`` if there is one for each id, else empty: otherwise it is not known which belongs to which."""
    return logprobs if len(logprobs) == len(token_ids) else ()
