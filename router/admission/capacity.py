"""What a model's replicas can do, as a backend knows it. Pure Python."""

from __future__ import annotations

from dataclasses import dataclass

UNKNOWN_SLOTS = 32
"""Slots of a replica that has not said how many it has: half of the engine's default, so that none gets too much."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What works on the requests for a model.

    Attributes:
        replicas: How many processes answered when they were last counted; 0 if that is not known.
        routers: How many routers share them, this one included.
        slots: How many generations one replica works on at once; 0 if none has said it.
        rows: How many beams in one step, likewise.
    """

    replicas: int = 0
    routers: int = 1
    slots: int = 0
    rows: int = 0
