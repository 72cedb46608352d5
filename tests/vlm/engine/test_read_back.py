"""What a step has chosen reaches the host in one transfer, with every value as it was."""

from __future__ import annotations

import asyncio
import math

import pytest
import torch
from torch import Tensor

from tests.oracle import MINIATURES
from vlm.engine import runner
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.engine.read_back import read_back
from vlm.image.sample import sample_image
from vlm.loading import load
from vlm.types import Request, Sampling


def test_values_shapes_and_types_are_kept() -> None:
    floats = torch.tensor([[0.1, -math.inf], [1e-38, 3.4e38]])
    ids = torch.tensor([0, 65_036, 2**53 - 1])
    found = read_back([ids, None, floats, torch.tensor([True, False])])
    assert found == [ids.tolist(), None, floats.tolist(), [True, False]]
    assert [type(found[0][0]), type(found[2][0][0]), type(found[3][0])] == [int, float, bool]


def test_nan_stays_nan() -> None:
    [[found]] = read_back([torch.tensor([math.nan])])
    assert math.isnan(found)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_step_is_one_transfer(beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    lists = 0
    tolist = Tensor.tolist

    def counted(parts: list[Tensor | None]) -> list[object]:
        read.append(len(parts))
        return read_back(parts)

    def noted(tensor: Tensor) -> object:
        nonlocal lists
        lists += 1
        return tolist(tensor)

    loaded = load(MINIATURES / "blip-large", dtype="float32", device="cpu")
    monkeypatch.setattr(runner, "read_back", counted)
    monkeypatch.setattr(Tensor, "tolist", noted)
    with Engine(loaded, EngineConfig(cache_bytes=2**26)) as engine:
        sampling = Sampling(max_tokens=4, num_beams=beams)
        asyncio.run(engine.complete(Request(sample_image(0), sampling=sampling)))
    assert 1 <= len(read) <= 4
    # Nothing else is read: of each part read there is at most one list, and None has none.
    assert lists <= sum(read)
