"""Ends every process below this one, including those whose parents have ended before them.

A cluster is a tree of processes, and killing its root leaves the others running. So this process adopts the orphans
(prctl), finds all its descendants in /proc and ends them. Both exist on Linux only; elsewhere Ray's own processes
must notice that their parent has ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """From now on a descendant whose parent ends becomes a child of this process, so that it can still be found."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def on_end_of_parent(number: signal.Signals) -> None:
    """Have the kernel send this process a signal as soon as its parent ends, even if the parent is killed."""
    _prctl(_PR_SET_PDEATHSIG, number)


def wait_for(child: int) -> int:
    """Wait until ``child`` ends and reap adopted processes meanwhile; returns its exit code, 1 if a signal ended it."""
    while True:
        process, status = os.wait()
        if process == child:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1


def send(process: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return


def end_descendants(grace_s: float = 3.0) -> None:
    """End every process below this one: SIGTERM first, SIGKILL after ``grace_s`` seconds. Returns when none is left."""
    deadline = time.monotonic() + grace_s
    terminated: set[int] = set()
    while alive := descendants(os.getpid()):
        late = time.monotonic() > deadline
        for process in alive if late else alive - terminated:
            send(process, signal.SIGKILL if late else signal.SIGTERM)
        terminated |= alive
        _reap()
        time.sleep(0.05)


def descendants(process: int) -> set[int]:
    """Ids of all processes below ``process``, including those that have ended and have not been reaped."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        if (parent := _parent(stat)) is not None:
            children[parent].append(int(stat.parent.name))
    found: set[int] = set()
    level = [process]
    while level:
        level = [child for parent in level for child in children[parent]]
        found.update(level)
    return found


def _parent(stat: Path) -> int | None:
    try:
        # The name is in parentheses and may contain any character, so the fields are counted from its end.
        return int(stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):  # it has just ended
        return None


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _reap() -> None:
    """Reap all children that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return
