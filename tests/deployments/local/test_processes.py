"""Ending a tree of processes: parents may have ended before, and some processes ignore SIGTERM."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")

# In a process of its own, because adopting orphans is a permanent setting of a process.
ADOPTS_AND_ENDS = """
import os, subprocess, sys, time
from deployments.local.processes import adopt_orphans, descendants, end_descendants

adopt_orphans()
subprocess.run(["sh", "-c", sys.argv[1]], check=True)  # the shell ends, what it has started goes on
time.sleep(0.3)
print(len(descendants(os.getpid())))
end_descendants(grace_s=float(sys.argv[2]))
print(len(descendants(os.getpid())))
"""


@pytest.mark.parametrize(
    "command",
    [
        "sleep 60 & sleep 60 &",
        "setsid sleep 60 & setsid sleep 60 &",
        "sh -c 'trap \"\" TERM; sleep 60 & sleep 60 & wait' & exit",
    ],
)
def test_nothing_is_left(command: str) -> None:
    assert counts(command, grace_s=0.5)[1] == 0


def test_processes_that_end_on_sigterm_are_not_waited_for() -> None:
    began = time.monotonic()
    assert counts("sleep 60 & sleep 60 &", grace_s=30) == [2, 0]
    assert time.monotonic() - began < 15


def counts(command: str, grace_s: float) -> list[int]:
    """Number of processes below the one that adopts, before and after it ends them."""
    program = [sys.executable, "-c", ADOPTS_AND_ENDS, command, str(grace_s)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)
    before, after = (int(line) for line in done.stdout.split())
    assert before >= 2
    return [before, after]


def test_a_child_ends_with_its_parent() -> None:
    program = """
import os, signal, time
from deployments.local.processes import on_end_of_parent

child = os.fork()
if child == 0:
    on_end_of_parent(signal.SIGKILL)
    os.close(1)
    os.open(os.devnull, os.O_WRONLY)
    time.sleep(60)
print(child, flush=True)
time.sleep(0.3)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    child = int(done.stdout)
    for _ in range(50):
        if not is_alive(child):
            return
        time.sleep(0.1)
    raise AssertionError(f"{child} is still there")


def is_alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
