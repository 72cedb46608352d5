"""What decides who runs does so without torch: it can be read, tested and trusted alone."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "blocks",
        "scheduler",
        "sequence",
        "detokenizer",
        "completion",
        "prepare",
        "processor_cache",
        "prefix_cache",
        "compose",
    ],
)
def test_no_torch(module: str) -> None:
    code = f"import sys, vlm.engine.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
