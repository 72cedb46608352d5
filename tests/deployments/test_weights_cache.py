"""The setting by which the replicas of a node share their weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.config import WEIGHTS_CACHE_BYTES, ModelConfig
from deployments.replica import Replica
from vlm.checkpoint.weights_cache import MAX_BYTES
from vlm.engine.config import EngineConfig
from vlm.errors import ConfigError

MINIATURE = str(Path(__file__).parents[2] / "miniatures/blip-large")
ENGINE = EngineConfig(max_batch=2, cache_bytes=16 * 1024**2, prepare_threads=1)


def test_a_replica_shares_its_weights_only_if_it_is_told_to() -> None:
    config = ModelConfig.from_args({"checkpoint": MINIATURE})
    assert (config.weights_cache, config.weights_cache_bytes) == (None, WEIGHTS_CACHE_BYTES)
    assert MAX_BYTES == WEIGHTS_CACHE_BYTES  # written twice, because a config is read without torch


def test_the_replicas_folder_gets_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = ModelConfig(checkpoint=MINIATURE, device="cpu", engine=ENGINE, weights_cache="~/weights")
    for _ in range(2):
        Replica(config).__del__()
    (file,) = (tmp_path / "weights").iterdir()
    assert file.name.startswith("blip-float32-")


def test_a_folder_that_depends_on_the_working_directory_is_refused() -> None:
    with pytest.raises(ConfigError, match="weights_cache must be an absolute path, or begin with ~, not 'weights'"):
        ModelConfig.from_args({"checkpoint": MINIATURE, "weights_cache": "weights"})


def test_no_room_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="weights_cache_bytes must be at least 1"):
        ModelConfig.from_args({"checkpoint": MINIATURE, "weights_cache_bytes": 0})
