"""What :mod:`deployments.check` finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that would go wrong.

    Attributes:
        place: Where in the config: keys joined by dots, with applications and deployments by their names.
        message: What is wrong and what to do, in a sentence or two.
    """

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"
