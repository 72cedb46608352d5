"""Interrupts of the starter, with a process that sleeps in place of the cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.deployments.system import ROOT, free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")

PROGRAM = """
import sys, time
from deployments.local import __main__ as starter

def run(config, options, directory):
    signal = starter.signal
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, starter.INTERRUPTS)
    print("running", flush=True)
    time.sleep(60)

starter._run = run
sys.exit(starter.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "numbers",
    [
        [signal.SIGINT],
        [signal.SIGTERM],
        [signal.SIGINT, signal.SIGINT],
        *[[signal.SIGINT, signal.SIGTERM]] * 3,  # to the whole group: a race showed in every second run
    ],
)
def test_an_interrupt_prints_one_line_however_often_it_comes(numbers: Sequence[signal.Signals]) -> None:
    command = [sys.executable, "-c", PROGRAM, "--port", str(free_port())]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.readline() == "running\n"
        for number in numbers:
            os.killpg(program.pid, number)
        assert program.wait(20) == 0
        assert program.stderr.read() == "gigarouter: stopped\n"
