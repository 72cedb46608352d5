"""What one check of a checkpoint found: the value that families and ``vlm.verify`` exchange. Knows nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "FAILED", "skipped"]

_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a verification.

    Attributes:
        check: What was looked at, in one or two words (``"special tokens"``).
        state: "skipped" where nothing could be said; the detail tells why.
        detail: What was found; of a failure, also what to do.
    """

    check: str
    state: State
    detail: str

    @classmethod
    def of(cls, check: str, faults: Sequence[str], fine: str, advice: str = "") -> Finding:
        """FAILED with the first few of ``faults`` and what to do about them, or ok with ``fine`` if there are none."""
        if not faults:
            return cls(check, "ok", fine)
        return cls(check, "FAILED", " ".join((f"{some(faults, '; ')}.", advice)).strip())


def some(names: Sequence[str], joint: str = ", ") -> str:
    """The first few of many, and how many more there are."""
    shown = joint.join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN:,} more"
