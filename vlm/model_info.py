"""What a model's process has loaded, as it crosses to the router."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CalibratedTask:
    """A task for which a model's answers have confidences.

    Attributes:
        name: Canonical name.
        threshold: The least confidence with which an answer is good enough to ask no other model; None if none is.
        thresholds: The same, by the model that would be asked next.
    """

    name: str
    threshold: float | None = None
    thresholds: tuple[tuple[str, float], ...] = ()

    def before(self, others: Sequence[str]) -> float | None:
        """The threshold where these models would be asked next: the highest of theirs."""
        known = dict(self.thresholds)
        found = [known.get(name, self.threshold) for name in others]
        return max((one for one in found if one is not None), default=None) if None not in found else None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a replica has loaded.

    Attributes:
        family: Folder of ``vlm.models`` that serves it (``"florence2"``).
        checkpoint: Folder or hub id, as configured.
        revision: Commit of the hub repository; None for a folder.
        parameters: Number of the model's parameters.
        dtype, device: Where and how it runs (``"float32"``, ``"cpu"``).
        slots: How many sequences its engine works on at once; 0 where there is no engine yet.
        rows: How many beams of theirs, likewise.
        calibrated: The tasks for which its answers have confidences.
    """

    family: str
    checkpoint: str
    revision: str | None
    parameters: int
    dtype: str
    device: str
    slots: int = 0
    rows: int = 0
    calibrated: tuple[CalibratedTask, ...] = ()
