"""Lines about long work, and none about short."""

from __future__ import annotations

import pytest

from training.progress import Progress


def test_progress_is_told_of_long_work_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for every_s in (60, 0):
        progress = Progress("blip-large", 2, every_s)
        progress.step()
        progress.step()
    assert capsys.readouterr().err == "blip-large 1/2\nblip-large 2/2\n"
