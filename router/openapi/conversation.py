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
    refused: Json = {
        name: {"enum": [None, *harmless], "description": "Other values are refused, or with drop_params ignored."}
        for name, harmless in [*impossible.items(), *((name, NOT_DEMANDED) for name in CHOICES)]
    }
    return {**offers, **refused}
