"""What :mod:`deployments.check` finds, and how it calls the places of a Serve config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that would or may go wrong.

    Attributes:
        place: Where in the config: keys joined by dots, with applications and deployments by their names.
        message: What is wrong and what to do, in a sentence or two.
        is_warning: Whether the config works all the same, on some clusters or at some times.
    """

    place: str
    message: str
    is_warning: bool = False

    def __str__(self) -> str:
        return f"{self.place}: {'warning: ' if self.is_warning else ''}{self.message}"


def place_of(application: Mapping[str, Any]) -> str:
    """Of an application."""
    return f"applications.{application.get('name')}"


def deployments_of(application: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place, entry) of each of its deployments that is a mapping."""
    listed = application.get("deployments")
    for one in listed if isinstance(listed, list) else []:
        if isinstance(one, Mapping):
            yield f"{place_of(application)}.deployments.{one.get('name')}", one
