"""Ending a tree of processes: parents may have ended before, and some processes ignore SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.local import processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")

# In a process of its own, because adopting orphans is a permanent setting of a process.
ADOPTS_AND_ENDS = """
import os, subprocess, sys, time
from deployments.local.processes import adopt_orphans, descendants, end_descendants

adopt_orphans()
subprocess.run(["sh", "-c", sys.argv[1]], check=True)  # the shell ends, what it has started goes on
expected, patience = int(sys.argv[3]), time.monotonic() + 10
while len(descendants(os.getpid())) < expected and time.monotonic() < patience:
    time.sleep(0.01)
print(len(descendants(os.getpid())))
end_descendants(grace_s=float(sys.argv[2]))
print(len(descendants(os.getpid())))
"""


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("setsid sleep 60 & setsid sleep 60 &", 2),
        ("sh -c 'trap \"\" TERM; sleep 60 & sleep 60 & wait' & exit", 3),
    ],
)
def test_nothing_is_left(command: str, number: int) -> None:
    assert counts(command, number, grace_s=0.2) == [number, 0]


def test_processes_that_end_on_sigterm_are_not_waited_for() -> None:
    assert counts("sleep 60 & sleep 60 &", 2, grace_s=3600) == [2, 0]


def counts(command: str, number: int, grace_s: float) -> list[int]:
    """Number of processes below the one that adopts, before and after it ends them.

    ``command`` starts ``number`` of them, which end by themselves after a minute: too late to pass.
    """
    program = [sys.executable, "-c", ADOPTS_AND_ENDS, command, str(grace_s), str(number)]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, timeout=20, check=True)
    return [int(line) for line in done.stdout.split()]


class Tree:
    """Processes and a clock that exist only here: what :func:`end_descendants` sees of the system.

    10 and 20 ignore SIGTERM, and 10 starts 30 when one second has passed.
    """

    def __init__(self) -> None:
        self.alive = {10, 15, 20}
        self.sent: list[tuple[float, int, signal.Signals]] = []
        self.now = 0.0

    def descendants(self, _process: int) -> set[int]:
        return set(self.alive)

    def send(self, process: int, number: signal.Signals) -> None:
        self.sent.append((self.now, process, number))
        if number == signal.SIGKILL or process == 15:
            self.alive.remove(process)

    def sleep(self, seconds: float) -> None:
        if self.now < 1 <= self.now + seconds:
            self.alive.add(30)
        self.now += seconds
        assert self.now < 100, "some process is never ended"

    def monotonic(self) -> float:
        return self.now


def test_each_process_is_asked_once_and_killed_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree()
    monkeypatch.setattr(processes, "descendants", tree.descendants)
    monkeypatch.setattr(processes, "send", tree.send)
    monkeypatch.setattr(processes, "_reap", lambda: None)
    monkeypatch.setattr(processes, "time", tree)
    processes.end_descendants(grace_s=3)
    asked = [(process, when) for when, process, number in tree.sent if number == signal.SIGTERM]
    killed = [(process, when) for when, process, number in tree.sent if number == signal.SIGKILL]
    assert sorted(asked[:3]) == [(10, 0), (15, 0), (20, 0)]
    assert [process for process, _ in asked[3:]] == [30]
    assert sorted(process for process, _ in killed) == [10, 20, 30]
    assert all(3 < when < 3.2 for _, when in killed)


def test_a_process_is_found_whatever_its_name() -> None:
    script = "printf '%s' 'a) b (' > /proc/$$/comm; echo named; read -r line"
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as named:
        assert named.stdout is not None
        assert named.stdout.readline() == "named\n"
        assert "(a) b ()" in Path(f"/proc/{named.pid}/stat").read_text(encoding="utf-8")
        assert named.pid in processes.descendants(os.getpid())
        named.communicate("\n", timeout=10)


def test_a_child_ends_with_its_parent() -> None:
    program = """
import os, signal, time
from deployments.local.processes import on_end_of_parent

reads, writes = os.pipe()
if os.fork() == 0:
    on_end_of_parent(signal.SIGKILL)
    os.write(writes, b"set")
    time.sleep(60)
os.read(reads, 3)
os.kill(os.getpid(), 9)
"""
    # The child has the pipe of stdout too, so that this returns when both have ended.
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=20, check=False)
    assert done.returncode == -signal.SIGKILL
