"""A process takes no more of a GPU than its part, however its config names the device. There is no GPU here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import torch

from vlm.engine.config import EngineConfig
from vlm.engine.gpu import share_of, taken, within
from vlm.engine.gpu_share import GIB
from vlm.errors import ConfigError
from vlm.models.base import VisionLanguageModel
from vlm.models.processor import CacheSpec

CARD = 80 * GIB
BLIP = CacheSpec(layers=12, kv_heads=12, head_dim=64, max_positions=512, cross_positions=577)
MODEL = cast(VisionLanguageModel, SimpleNamespace(cache=BLIP))
PARAMETERS = GIB // 2


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """The limit of each card, as torch's own functions set it: only what would reach for a card is replaced."""
    found: dict[int, float] = {}
    properties = SimpleNamespace(total_memory=CARD)
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda _device: GIB)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _device: properties)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 1)
    monkeypatch.setattr("torch.cuda.memory._lazy_init", lambda: None)
    set_it, get_it = (f"torch._C._cuda_{verb}MemoryFraction" for verb in ("set", "get"))
    monkeypatch.setattr(set_it, lambda fraction, index: found.update({index: fraction}), raising=False)
    monkeypatch.setattr(get_it, found.__getitem__, raising=False)
    return found


@pytest.mark.parametrize(("device", "index"), [("cuda", 1), ("cuda:0", 0)])
def test_a_model_that_fits_limits_its_process(device: str, index: int, limits: dict[int, float]) -> None:
    where = torch.device(device)
    within(where, 0.25, EngineConfig())(MODEL, PARAMETERS, torch.bfloat16)
    assert limits == {index: share_of(where, 0.25).allocator_fraction}
    measured = taken(where)
    assert measured is not None
    assert measured.limit == pytest.approx(share_of(where, 0.25).allocator_bytes, abs=1)


def test_a_model_that_does_not_fit_is_refused_and_limits_nothing(limits: dict[int, float]) -> None:
    with pytest.raises(ConfigError, match="does not fit into its part of the GPU"):
        within(torch.device("cuda"), 0.01, EngineConfig())(MODEL, PARAMETERS, torch.bfloat16)
    assert limits == {}


def test_nothing_is_taken_of_a_gpu_that_is_not_there() -> None:
    assert taken(torch.device("cpu")) is None
