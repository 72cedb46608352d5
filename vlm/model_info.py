"""What a model's process has loaded, as it crosses to the router."""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    family: str
    checkpoint: str
    revision: str | None
    parameters: int
    dtype: str
    device: str
    slots: int = 0
    rows: int = 0
