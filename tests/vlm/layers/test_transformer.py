"""The flags that a spec has, each against the formula written out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlm.layers.attention import Bidirectional, CrossAttention, Growing, SelfAttention, additive, by_head
from vlm.layers.modules import LayerNorm
from vlm.layers.rope import Rotary
from vlm.layers.transformer import Layer, Mlp, SinusoidalPositions, TextTransformer, Transformer, TransformerSpec

WIDTH, HEADS, HIDDEN = 12, 3, 20


def spec(*, inner_norm: bool) -> TransformerSpec:
    return TransformerSpec(layers=2, width=WIDTH, heads=HEADS, mlp_width=HIDDEN, norm="pre", inner_norm=inner_norm)


def seeded(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def attended(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Softmax attention of all heads, one head after the other."""
    size = WIDTH // HEADS
    parts = []
    for head in range(HEADS):
        query, key, value = (one[..., head * size : (head + 1) * size] for one in (queries, keys, values))
        parts.append(torch.softmax(query @ key.transpose(-1, -2) / math.sqrt(size), dim=-1) @ value)
    return torch.cat(parts, dim=-1)


def test_the_inner_norm_of_attention_stands_before_its_output_matrix() -> None:
    attention = seeded(SelfAttention(WIDTH, HEADS, LayerNorm(WIDTH)))
    assert isinstance(attention, SelfAttention)
    assert attention.inner_norm is not None
    x = torch.randn(2, 5, WIDTH)
    expected = attention.out(attention.inner_norm(attended(*attention.qkv(x).chunk(3, dim=-1))))
    torch.testing.assert_close(attention(x, 0, Bidirectional(5)), expected)


def test_the_inner_norm_of_the_mlp_stands_after_the_activation() -> None:
    mlp = seeded(Mlp(WIDTH, HIDDEN, "gelu", LayerNorm(HIDDEN)))
    assert isinstance(mlp, Mlp)
    assert mlp.inner_norm is not None
    x = torch.randn(2, 5, WIDTH)
    torch.testing.assert_close(mlp(x), mlp.down(mlp.inner_norm(F.gelu(mlp.up(x)))))


def test_a_spec_gives_inner_norms_to_all_parts_or_to_none() -> None:
    plain = {name for name, _ in Layer(spec(inner_norm=False)).named_parameters()}
    inner = {name for name, _ in Layer(spec(inner_norm=True)).named_parameters()}
    assert inner - plain == {
        f"{part}.inner_norm.{name}" for part in ("attention", "mlp") for name in ("weight", "bias")
    }
    assert Layer(spec(inner_norm=True)).mlp.inner_norm.weight.shape == (HIDDEN,)  # type: ignore[union-attr]  # it is there


def test_cross_attention_with_keys_and_values_at_hand() -> None:
    attention = seeded(CrossAttention(WIDTH, HEADS, 7))
    assert isinstance(attention, CrossAttention)
    x, seen = torch.randn(2, 4, WIDTH), torch.randn(2, 6, 7)
    expected = attention.out(attended(attention.query(x), *attention.key_value(seen).chunk(2, dim=-1)))
    torch.testing.assert_close(attention.attend(x, *by_head(attention.keys_values(seen))), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_additive_mask_hides_what_the_boolean_one_hides(dtype: torch.dtype) -> None:
    mask = torch.tensor([[True, False, True], [True, True, True]])[:, None, None]
    queries, keys, values = torch.randn(3, 2, HEADS, 3, 8).to(dtype).unbind()
    expected = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    assert torch.equal(F.scaled_dot_product_attention(queries, keys, values, attn_mask=additive(mask, dtype)), expected)


@pytest.mark.parametrize(("width", "offset"), [(8, 0), (8, 2), (128, 2)])
def test_sinusoidal_positions_are_sines_then_cosines(width: int, offset: int) -> None:
    positions = torch.tensor([[0, 1, 7], [2047, 3, 3]])
    found = SinusoidalPositions(2048, width, offset)(positions)
    assert found.dtype == torch.float32
    half = width // 2
    for row, column in ((0, 0), (0, 2), (1, 0)):
        position = int(positions[row, column]) + offset
        angles = [position * 10000 ** (-i / (half - 1)) for i in range(half)]
        expected = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        assert found[row, column].tolist() == pytest.approx(expected, abs=1e-3)


def test_sinusoidal_positions_are_the_references_bits() -> None:
    from transformers.models.kosmos2.modeling_kosmos2 import Kosmos2TextSinusoidalPositionalEmbedding

    table = Kosmos2TextSinusoidalPositionalEmbedding(600, 64, padding_idx=1).weights
    assert torch.equal(SinusoidalPositions(598, 64, 2)(torch.arange(598)[None])[0], table[2:600])


def test_sinusoidal_positions_hold_nothing() -> None:
    """So that a model built without storage has them all the same."""
    with torch.device("meta"):
        positions = SinusoidalPositions(8, 16)
    assert not list(positions.parameters())
    assert not list(positions.buffers())
    assert positions(torch.tensor([[0, 1]])).device.type == "cpu"


def test_positions_do_not_widen_the_embeddings() -> None:
    model = seeded(TextTransformer(spec(inner_norm=True), SinusoidalPositions(50, WIDTH))).to(torch.bfloat16)
    assert model(torch.zeros(1, 3, WIDTH, dtype=torch.bfloat16), Bidirectional(3)).dtype == torch.bfloat16


def test_parallel_parts_read_the_same_norm() -> None:
    layer = seeded(Layer(TransformerSpec(1, WIDTH, HEADS, HIDDEN, "parallel")))
    assert isinstance(layer, Layer)
    assert "mlp_norm" not in dict(layer.named_children())
    x, context = torch.randn(2, 5, WIDTH), Bidirectional(5)
    normed = layer.attention_norm(x)
    torch.testing.assert_close(layer(x, 0, context), x + layer.attention(normed, 0, context) + layer.mlp(normed))


def test_few_heads_of_keys_and_values_serve_all_queries() -> None:
    few = seeded(SelfAttention(WIDTH, 6, kv_heads=2))
    all_of_them = SelfAttention(WIDTH, 6)
    assert isinstance(few, SelfAttention)
    size = WIDTH // 6
    with torch.no_grad():
        for theirs, ours in zip(few.parameters(), all_of_them.parameters(), strict=True):
            if theirs.shape == ours.shape:
                ours.copy_(theirs)
            else:
                query, key, value = theirs.split_with_sizes(few.widths)
                repeated = (
                    part.view(2, size, *part.shape[1:]).repeat_interleave(3, 0).flatten(0, 1) for part in (key, value)
                )
                ours.copy_(torch.cat([query, *repeated]))
    x = torch.randn(2, 5, WIDTH)
    torch.testing.assert_close(few(x, 0, Bidirectional(5)), all_of_them(x, 0, Bidirectional(5)))


def test_an_mlp_may_lead_elsewhere() -> None:
    assert Mlp(WIDTH, HIDDEN, "gelu", out_width=7)(torch.randn(2, WIDTH)).shape == (2, 7)


def test_rotary_positions_count_from_what_came_before() -> None:
    """One pass over all positions equals one step after the other."""
    model = seeded(Transformer(TransformerSpec(2, 16, 2, HIDDEN, "parallel", kv_heads=1, rotary=Rotary(4))))
    x = torch.randn(1, 6, 16)
    whole, steps = Growing(), Growing()
    whole.advance(6)
    expected = model(x, whole)
    for column in range(6):
        steps.advance(1)
        torch.testing.assert_close(
            model(x[:, column : column + 1], steps), expected[:, column : column + 1], atol=1e-4, rtol=1e-4
        )


def test_a_prefix_sees_itself_whole_and_is_seen_by_all() -> None:
    context = Growing(prefix=3)
    context.advance(3)
    assert context.mask is not None
    assert context.mask.all()
    context.advance(2)
    assert context.mask.int().tolist() == [[[[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]]]
