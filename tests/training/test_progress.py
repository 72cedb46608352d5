"""Progress is printed for long computations only."""

from __future__ import annotations

import pytest

from training.progress import Progress


def test_only_long_computations_print_progress(capsys: pytest.CaptureFixture[str]) -> None:
    for every_s in (60, 0):
        progress = Progress("blip-large", 2, every_s)
        progress.step()
        progress.step()
    assert capsys.readouterr().err == "blip-large 1/2\nblip-large 2/2\n"
