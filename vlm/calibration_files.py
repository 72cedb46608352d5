"""Where the calibration of a checkpoint is: in its folder, or for published weights beside their family's card."""

from __future__ import annotations

import json
from pathlib import Path

from vlm.calibration import FILE, MAX_BYTES, NOT_CALIBRATED, Calibration, read_calibration
from vlm.checkpoint.unfit import unreadable
from vlm.errors import CheckpointError

CALIBRATIONS = "calibrations"
"""The folder beside a card; a file there is named after the repository and the revision that it was measured with."""


def find_calibration(folder: Path, source: str, revision: str | None, beside_card: Path) -> Calibration:
    """The calibration of a checkpoint; one that says nothing where there is no file.

    Args:
        folder: Of the checkpoint. A file of its own comes first.
        source, revision: Where the checkpoint came from.
        beside_card: The family's folder of files for published weights.

    Raises:
        CheckpointError: The file cannot be used.
    """
    own = folder / FILE
    if own.is_file():
        return load_calibration(own)
    published = None if revision is None else beside_card / published_name(source, revision)
    return load_calibration(published) if published is not None and published.is_file() else NOT_CALIBRATED


def published_name(repository: str, revision: str) -> str:
    """The name of the file for a revision of a hub repository."""
    return f"{repository.replace('/', '--')}@{revision}.json"


def load_calibration(path: Path) -> Calibration:
    """The calibration in a file.

    Raises:
        CheckpointError: It is too large, not JSON, or not a calibration.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path.name} in {path.parent} is no calibration: it has over {MAX_BYTES} bytes.")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, "is not readable JSON") from error
    if not isinstance(values, dict):
        raise unreadable(path, "does not hold a JSON object")
    return read_calibration(values, f"{path.name} in {path.parent}")
