"""OpenAI's ``service_tier``: whether somebody waits for the answer, or it is part of a batch that may take longer.

There are two ways to be served here, and an answer says which of them it was: "flex" for a batch, and "default" for all
others. A tier that costs more elsewhere ("priority", "scale") is served as the default is.
"""

from __future__ import annotations

from typing import Literal

from vlm.types import Priority

ServiceTier = Literal["auto", "default", "flex", "scale", "priority"]
ServedTier = Literal["default", "flex"]


def priority_of(tier: ServiceTier | None) -> Priority:
    """What the engine is told."""
    return "batch" if tier == "flex" else "interactive"


def served_as(tier: ServiceTier | None) -> ServedTier | None:
    """What the answer says; nothing where the request does not ask."""
    if tier is None:
        return None
    return "flex" if tier == "flex" else "default"
