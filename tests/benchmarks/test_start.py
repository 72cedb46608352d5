"""The benchmark of a replica's start measures every part, and says how much memory replicas share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import start

PARTS = (
    "interpreter", "import ray.serve", "import deployments", "import torch", "import vlm", "load and start",
    "request 1", "request 2",
)  # fmt: skip


def test_a_replica_starts_part_by_part(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    arguments = ["miniatures/blip-large", "--runs", "1", "--replicas", "1", "--weights-cache", str(cache)]
    assert start.main(arguments) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert tuple(line["part"] for line in lines if "part" in line) == PARTS
    assert all(line["cpu_s"] >= 0 and line["wall_s"] > 0 for line in lines if "part" in line)
    memory = {line["memory"]: line["mib"] for line in lines if "memory" in line}
    assert 0 < memory["Pss"] <= memory["Rss"]
    assert len(list(cache.iterdir())) == 1


def test_a_system_that_cannot_run_ends_the_measurement(tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("applications: [{name: x, import_path: deployments.app:build, args: {}}]")
    with pytest.raises(SystemExit, match="the system is not ready"):
        start.start_system(config)
