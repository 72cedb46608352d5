"""Rotary positions against the definition, and against what another implementation computed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from vlm.layers.rope import Rotary, Rotation, rotate


def rotated(x: Tensor, rotation: Rotation) -> Tensor:
    x = x.clone()
    rotate(x, rotation)
    return x


UNITS = load_file(Path(__file__).parents[2] / "data" / "moondream2" / "units.safetensors")


def test_angles_are_the_references() -> None:
    cos, sin = Rotary(32).rotation(torch.tensor([[0, 1, 729, 2047]]))
    expected = UNITS["rope.freqs_cos_sin_pos0_1_729_2047"]
    torch.testing.assert_close(torch.stack([cos[0, :, 0, :16], sin[0, :, 0, 16:]], dim=-1), expected, atol=1e-6, rtol=0)


def test_rotated_vectors_are_the_references_but_for_their_order() -> None:
    """There the two halves are woven together afterwards, for queries and keys alike."""
    by_position = UNITS["rope.in"].transpose(1, 2)
    found = rotated(by_position, Rotary(32).rotation(torch.tensor([[5, 730, 2047]]))).transpose(1, 2)
    woven = torch.stack([found[..., :16], found[..., 16:32]], dim=-1).flatten(-2)
    expected = UNITS["rope.out_pos_5_730_2047"]
    torch.testing.assert_close(torch.cat([woven, found[..., 32:]], dim=-1), expected, atol=2e-6, rtol=0)


def test_pairs_are_rotated_by_position_times_frequency() -> None:
    x = torch.zeros(1, 1, 1, 8)
    x[..., 1] = 1.0
    found = rotated(x, Rotary(4, theta=100.0).rotation(torch.tensor([[3]])))[0, 0, 0].tolist()
    angle = 3 * 100.0 ** (-2 / 4)
    assert found == pytest.approx([0, math.cos(angle), 0, math.sin(angle), 0, 0, 0, 0], abs=1e-6)


@given(shift=st.integers(0, 1000), seed=st.integers(0, 99))
def test_scores_depend_on_the_distance_alone(shift: int, seed: int) -> None:
    query, key = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(seed)).unbind()
    rotary = Rotary(8)

    def score(at: int, other: int) -> float:
        turned = (rotated(x, rotary.rotation(torch.tensor([[p]]))) for x, p in ((query, at), (key, other)))
        return float((next(turned) * next(turned)).sum())

    assert score(7 + shift, 3 + shift) == pytest.approx(score(7, 3), abs=2e-3)


def test_angles_stay_float32_and_vectors_what_they_are() -> None:
    rotation = Rotary(4).rotation(torch.tensor([[2047]]))
    assert rotation[0].dtype == torch.float32
    x = torch.randn(1, 1, 1, 8).to(torch.bfloat16)
    turned = rotated(x, rotation)
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, rotated(x.float(), rotation).to(torch.bfloat16))
