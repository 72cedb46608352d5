"""Two replicas of a model, one of which is killed under load: no client notices more than a pause."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from benchmarks.killer import Seen, report, running, watch

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="looks its processes up in /proc"),
]

MODEL = "florence-2-base"
MOST = 8
"""Kills, each of which may find no stream that has begun."""


def test_no_request_fails_and_no_stream_is_cut_when_a_replica_is_killed(tmp_path: Path) -> None:
    with running(tmp_path, MODEL, 2, {}) as system:

        def enough(seen: Seen) -> bool:
            kills = len(seen.kills)
            return kills >= MOST or (kills >= 2 and "goes on with a stream" in system.log)

        seen = asyncio.run(watch(system, MODEL, 8, 2.0, enough))
        log = system.log
    assert seen.outcomes.keys() == {"answered"}, "\n".join(report(seen, log))
    assert "tries a request again" in log
    assert "goes on with a stream" in log
