"""What the schemas of all bodies have that are conversations, beside the fields of their models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.conversation.tools import CHOICES, NOT_DEMANDED, OFFERS

Json = dict[str, Any]


def unsupported(impossible: Mapping[str, tuple[object, ...]]) -> Json:
    """Offers of tools, which are ignored, and what is refused: demands of them, and the ``impossible`` fields.

    Args:
        impossible: Names of fields, with the values for which they are not refused; null never is.
    """
    offers: Json = {name: {"description": "Ignored and reported: the models cannot call tools."} for name in OFFERS}
    accepted: Mapping[str, tuple[object, ...]] = {**impossible, **dict.fromkeys(CHOICES, NOT_DEMANDED)}
    return {**offers, **{name: _only(harmless) for name, harmless in accepted.items()}}


def _only(harmless: tuple[object, ...]) -> Json:
    """A field with no values but null and these, of which null may be one."""
    values = [value for value in harmless if value is not None]
    return {"enum": [None, *values], "description": "Other values are refused, or with drop_params ignored."}
