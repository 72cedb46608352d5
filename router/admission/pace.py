"""How much a model's replicas get done, as one router sees it. Pure Python."""

from __future__ import annotations

import math

WINDOW_S = 5.0
"""Busy seconds after which what was served counts for a third: longer than most answers take."""


class Pace:
    """Places served in a second by one replica, measured only while all replicas have work.

    At other times the pace says how much is asked, and not how much could be done. With several routers, each measures
    its own share, and has only that share waiting.
    """

    def __init__(self) -> None:
        self._since: float | None = None  # when they came to have work, or when something was served last
        self._busy_s = 0.0  # of one replica: seconds of all replicas together
        self._served = 0.0

    @property
    def is_known(self) -> bool:
        """Whether anything has been measured."""
        return self._served > 0

    def changed(self, now: float, *, busy: bool) -> None:
        """Whether all replicas have work from ``now`` on."""
        if not busy:
            self._since = None
        elif self._since is None:
            self._since = now

    def served(self, places: int, replicas: int, now: float) -> None:
        """A request of so many places has been answered; so many replicas run."""
        if self._since is None:
            return
        passed = now - self._since
        keep = math.exp(-passed / WINDOW_S)
        self._busy_s = self._busy_s * keep + passed * replicas
        self._served = self._served * keep + places
        self._since = now

    def seconds(self, places: int, replicas: int, now: float) -> float:
        """How long so many replicas take for so many places; the longer, the longer nothing has been served."""
        silent_s = 0.0 if self._since is None else now - self._since
        return places * (self._busy_s / replicas + silent_s) / max(1.0, self._served)
