"""The servers of tests: none outlives its test, not even one that is killed."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.accounts.processes import ROOT
from tests.accounts.servers import HOST, PATIENCE_S, Redis, program, running_redis

_HOLD = """
import sys
from tests.accounts.servers import {name}
with {name}() as server:
    print(server.port, server.folder, flush=True)
    sys.stdin.read()
"""


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


@pytest.mark.parametrize(("name", "needs"), [("running_postgresql", "initdb"), ("running_redis", "redis-server")])
def test_one_ends_with_a_test_that_is_killed(name: str, needs: str) -> None:
    if not program(needs):
        pytest.skip(f"there is no {needs} on this machine")
    command = [sys.executable, "-c", _HOLD.format(name=name)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as test:
        assert test.stdout is not None
        port, folder = test.stdout.readline().split()
        assert listens(int(port))
        test.kill()
    end = time.monotonic() + PATIENCE_S
    while listens(int(port)) or Path(folder).exists():
        assert time.monotonic() < end, f"{folder} is still there"
        time.sleep(0.05)


def test_one_can_stop_and_come_back() -> None:
    if not program("redis-server"):
        pytest.skip("there is no redis-server on this machine")
    with running_redis() as server:
        assert server.answers()
        server.stop()
        assert not server.answers()
        server.start()
        assert server.answers()
    assert not server.folder.exists()


def test_each_test_gets_an_empty_redis(redis_server: Redis, redis_url: str) -> None:
    assert redis_server.url == redis_url
    assert redis_server.answers()
