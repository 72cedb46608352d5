"""Logits are float32 and unrounded, whatever the dtype of the weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.oracle import MINIATURES
from vlm.layers import head
from vlm.layers.transformer import Mlp
from vlm.loading import load
from vlm.models.base import TokenModel

NARROW = (torch.bfloat16, torch.float16)


def numbers(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    shapes = ((3, 16), (40, 16), (40,))
    hidden, weight, bias = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return hidden, weight, bias


def test_in_float32_it_is_the_linear_layer_bit_for_bit() -> None:
    hidden, weight, bias = numbers(torch.float32)
    assert torch.equal(head.logits(hidden, weight, bias), F.linear(hidden, weight, bias))
    assert torch.equal(head.logits(hidden, weight), F.linear(hidden, weight))


@pytest.mark.parametrize("dtype", NARROW)
def test_narrow_weights_give_the_float32_sums_of_their_products(dtype: torch.dtype) -> None:
    hidden, weight, bias = numbers(dtype)
    found = head.logits(hidden, weight, bias)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, F.linear(hidden.float(), weight.float(), bias.float()))
    assert not torch.equal(found, found.to(dtype).float()), "the logits have been rounded"


@pytest.mark.parametrize("dtype", NARROW)
def test_an_mlp_as_a_head_keeps_its_last_sums_unrounded(dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    mlp = Mlp(16, 24, "gelu", out_width=40).to(dtype)
    hidden, _, _ = numbers(dtype)
    with torch.inference_mode():
        assert torch.equal(mlp.logits(hidden).to(dtype), mlp(hidden))
        assert mlp.logits(hidden).dtype == torch.float32


@pytest.mark.parametrize("folder", ["blip-large", "florence-2-base", "kosmos-2", "moondream-2"])
def test_every_family_has_such_a_head(folder: str) -> None:
    model = load(MINIATURES / folder, dtype="bfloat16", device="cpu").model
    assert isinstance(model, TokenModel)
    width = model.embed_tokens(torch.zeros(1, dtype=torch.long)).shape[-1]
    with torch.inference_mode():
        logits = model.logits(torch.randn(2, width, dtype=torch.bfloat16))
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())
