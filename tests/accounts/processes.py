"""Runs the same lines of Python in several processes at the same moment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
_WAIT = "print('ready', flush=True)\nsys.stdin.readline()\n"


def at_once(count: int, imports: str, lines: str, *arguments: str) -> list[str]:
    """Run ``lines`` in ``count`` processes, which begin together once all of them have run ``imports``.

    Returns:
        What each of them wrote.
    """
    code = f"import sys\n{imports}\n{_WAIT}{lines}"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for _ in range(count)
    ]  # fmt: skip
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    written = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0] * count, written
    return written
