"""How sure a model was of an object: one number from the log-probabilities of the tokens that it wrote for it.

Owns the definition; ``docs/scores.md`` has its limits and what was measured. Knows no grammar: parsers say which tokens
are an object's. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Logprobs = Sequence[float]
"""Raw log-probability of each token, nan for one that the model did not choose; empty where none are known."""


def score(location: Logprobs, label: Logprobs = ()) -> float | None:
    """The score of one object, in [0, 1]: its label's probability times the geometric mean of its location tokens'.

    The mean makes places of two tokens and of twenty comparable; the product of the label is the probability of the
    whole label. Tokens of a label that the model did not choose have no part in it.

    Args:
        location: Of the tokens of its place.
        label: Of the tokens of its label; empty where it has none of its own.

    Returns:
        None where the location's probability is not known: without tokens, or with one that the model did not choose.
    """
    if not location:
        return None
    mean = sum(location) / len(location)
    named = sum(logprob for logprob in label if not math.isnan(logprob))
    return None if math.isnan(mean) else math.exp(min(0.0, mean + named))


def matching(token_ids: Sequence[int], logprobs: Logprobs) -> Logprobs:
    """``logprobs`` where there is one for each id; else none, for nobody knows which is whose."""
    return logprobs if len(logprobs) == len(token_ids) else ()
