"""A cluster of three nodes loses a replica and a node, and a model is updated, while clients go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployments.system import ROOT

pytestmark = [
    pytest.mark.ray,
    pytest.mark.nodes,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="HAProxy comes with Ray on Linux alone"),
]

AT_ONCE = {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2"}
SHORT = ("--minutes", "0.1", "--every", "4", "--rate", "4", "--only", "replicas,model-update,node")


def test_nothing_is_lost_but_streams_whose_router_went_with_its_node(tmp_path: Path) -> None:
    found = tmp_path / "chaos.json"
    command = [sys.executable, "-m", "benchmarks.chaos", *SHORT, "--json", str(found)]
    ended = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **AT_ONCE}, capture_output=True, text=True, check=False
    )
    assert found.exists(), ended.stderr[-3000:]
    phases = json.loads(found.read_text("utf-8"))["phases"]
    assert [phase["name"] for phase in phases] == ["a model's replica killed", "update of a model", "a node killed"]
    for phase in phases:
        counts, wrong = phase["counts"], phase["wrong"]
        assert (counts["failed"], counts["cut"], counts["differ"], counts["refused"], wrong) == (0, 0, 0, {}, []), phase
        assert counts["answered"] + counts["died"] == counts["requests"]
    *others, node = phases
    assert [phase["counts"]["died"] for phase in others] == [0, 0]
    begun = {record["outcome"] for record in node["not_answered"]}
    assert begun <= {"cut"}, node
