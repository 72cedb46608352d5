"""When a line about progress is due."""

from __future__ import annotations

from vlm.checkpoint.progress import INTERVAL_S, Progress


def test_a_line_comes_only_when_the_interval_has_passed() -> None:
    times = iter([0.0, 1.0, INTERVAL_S, INTERVAL_S + 1, 2 * INTERVAL_S])
    lines: list[str] = []
    progress = Progress(lines.append, lambda: next(times))
    for step in range(4):
        progress.update(f"step {step}")
    assert lines == ["step 1", "step 3"]
