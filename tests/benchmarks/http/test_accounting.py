"""CPU time and memory are counted by what the processes of a tree do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks import processes
from benchmarks.http.accounting import Seconds, _ended, counting, part_of

BUSY = """
import subprocess, sys, time
from benchmarks.peers.captions import call_this_process
call_this_process(sys.argv[1])
child = subprocess.Popen([sys.executable, *sys.argv[3:]]) if sys.argv[3:] else None
print("ready", flush=True)
sys.stdin.readline()
while time.process_time() < float(sys.argv[2]): pass
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    ("title", "name", "part"),
    [
        ("ray::ServeReplica:router:Router", "ray::ServeRepl", "router"),
        ("ray::ServeReplica:blip-large:Replica", "ray::ServeRepl", "replica"),
        ("ray::ServeReplica:default:Captioning", "ray::ServeRepl", "replica"),
        ("ray::ProxyActor", "ray::ProxyActor", "proxy"),
        ("ray::ServeController.listen_for_change", "ray::ServeContr", "controller"),
        ("python -m vlm.decoding.child 7", "python", "decoding"),
        ("python -m benchmarks.peers.lit", "replica", "replica"),
        ("python -m benchmarks.peers.lit", "python", "rest"),
        ("raylet --session", "raylet", "rest"),
    ],
)
def test_what_a_process_does(title: str, name: str, part: str) -> None:
    assert part_of(title, name) == part


@contextmanager
def started(*arguments: str, program: str = BUSY) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as popen:
        assert popen.stdin is not None
        assert popen.stdout is not None
        try:
            assert popen.stdout.readline() == "ready\n"
            yield popen
        finally:
            popen.kill()


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")


@linux
def test_cpu_time_is_that_of_the_block_by_part() -> None:
    with started("replica", "0.6") as popen:
        assert popen.stdin is not None
        assert popen.stdout is not None
        before = processes.cpu_seconds(popen.pid)
        with counting(popen.pid) as used:
            print(file=popen.stdin, flush=True)
            popen.stdout.readline()
        assert set(used.cpu_s) == {"replica"}
        assert used.cpu_s["replica"] == pytest.approx(0.6 - before, abs=0.1)
        assert used.memory_mib > 3


ENDING = """
import subprocess, sys
command = [sys.executable, "-c", "import time\\nwhile time.process_time() < 0.6: pass"]
print("ready", flush=True)
sys.stdin.readline()
subprocess.run(command, check=True)
print("done", flush=True)
sys.stdin.readline()
"""


@linux
def test_cpu_time_of_a_process_that_ends_is_not_lost() -> None:
    with started(program=ENDING) as popen:
        assert popen.stdin is not None
        assert popen.stdout is not None
        with counting(popen.pid) as used:
            print(file=popen.stdin, flush=True)
            popen.stdout.readline()
        assert used.cpu_s["rest"] >= 0.55


def test_of_a_process_that_ends_only_what_it_used_since_counts() -> None:
    before = {1: Seconds(1.0, 0.25), 2: Seconds(5.0, 0.5)}
    assert _ended(before, {1: Seconds(1.5, 6.0)}) == 0.25
    assert _ended(before, before) == 0


@linux
def test_a_tree_has_those_below_those_below() -> None:
    with started("rest", "0", "-c", BUSY, "router", "0") as popen:
        deadline = time.monotonic() + 60
        while len(processes.tree(popen.pid)) < 2:
            assert time.monotonic() < deadline
        assert popen.pid in processes.tree(os.getpid())
        children = processes.children_of(popen.pid)
        assert processes.tree(popen.pid) == [popen.pid, *children]
        for child in children:
            os.kill(child, 9)


@linux
def test_a_process_that_has_ended_has_nothing() -> None:
    nobody = 2**22 + 1
    assert processes.tree(nobody) == [nobody]
    assert (processes.title(nobody), processes.name(nobody), processes.parent(nobody)) == ("", "", 0)
    assert processes.cpu_seconds(nobody) == processes.proportional_mib(nobody) == 0
    assert processes.memory(nobody) == processes.Memory(0, 0)


@linux
def test_memory_of_this_process() -> None:
    here = processes.memory(os.getpid())
    assert here.resident >= here.own > 0
    assert here.resident + 1 >= processes.proportional_mib(os.getpid()) > 0
