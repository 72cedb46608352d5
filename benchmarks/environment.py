"""The environment of what the benchmarks take beyond the product: LitServe, and matplotlib."""

from __future__ import annotations

from pathlib import Path

from tools.environments import install
from tools.lock import FOLDER, ROOT


def interpreter() -> Path:
    """The interpreter of .venv-bench, which is made if it is not there; it sees the product's packages, too."""
    return install(FOLDER / "bench.txt", ROOT / ".venv-bench", over=True)
