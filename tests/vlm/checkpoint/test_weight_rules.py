"""Tensors with other names are copied to the right parameters, and an error names each that does not fit."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from vlm.checkpoint.weight_rules import Rule, WeightTarget, load_weights, sources
from vlm.errors import CheckpointError

RULES = (
    Rule(r"tokens\.weight", ("embed.weight",), aliases=("lm_head.weight", "other.embed.weight")),
    Rule(r"layers\.(\d+)\.qkv\.(.+)", tuple(rf"block.\1.{part}.\2" for part in ("query", "key", "value"))),
    Rule(r"layers\.(\d+)\.out\.(.+)", (r"block.\1.dense.\2",)),
)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 6)
        self.out = nn.Linear(2, 4)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(5, 4)
        self.layers = nn.ModuleList([Layer(), Layer()])


def tensors() -> dict[str, Tensor]:
    """A checkpoint that fits. All of its numbers are different."""
    numbers = itertools.count()

    def filled(*shape: int) -> Tensor:
        return torch.tensor(list(itertools.islice(numbers, torch.Size(shape).numel()))).float().view(shape)

    made = {"embed.weight": filled(5, 4)}
    for layer in range(2):
        for part in ("query", "key", "value"):
            made[f"block.{layer}.{part}.weight"] = filled(2, 4)
            made[f"block.{layer}.{part}.bias"] = filled(2)
        made[f"block.{layer}.dense.weight"] = filled(4, 2)
        made[f"block.{layer}.dense.bias"] = filled(4)
    return made


def loaded(given: dict[str, Tensor], ignored: str = r"(?!)") -> dict[str, Tensor]:
    model = Tiny()
    load_weights(model, given.items(), RULES, ignored)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def fault(given: dict[str, Tensor]) -> str:
    with pytest.raises(CheckpointError) as caught:
        loaded(given)
    return str(caught.value)


def test_fused_parameters_take_their_parts_in_order() -> None:
    given = tensors()
    ours = loaded(given)
    for layer in range(2):
        parts = [given[f"block.{layer}.{part}.weight"] for part in ("query", "key", "value")]
        assert torch.equal(ours[f"layers.{layer}.qkv.weight"], torch.cat(parts))
        assert torch.equal(ours[f"layers.{layer}.out.bias"], given[f"block.{layer}.dense.bias"])


def test_the_order_in_the_file_does_not_matter() -> None:
    given = tensors()
    backwards = dict(reversed(given.items()))
    assert all(torch.equal(a, b) for a, b in zip(loaded(given).values(), loaded(backwards).values(), strict=True))


def test_values_are_cast_to_the_parameters_type() -> None:
    model = Tiny().to(torch.bfloat16)
    load_weights(model, tensors().items(), RULES)
    assert model.tokens.weight.dtype == torch.bfloat16
    assert model.tokens.weight[1].tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("alias", ["lm_head.weight", "other.embed.weight"])
def test_a_tied_tensor_may_be_there_under_another_name_only(alias: str) -> None:
    given = tensors()
    expected = given.pop("embed.weight")
    assert torch.equal(loaded({**given, alias: expected})["tokens.weight"], expected)


def test_its_own_name_wins_over_an_alias_in_any_order() -> None:
    given = tensors()
    other = torch.full((5, 4), -1.0)
    for order in ({"lm_head.weight": other, **given}, {**given, "lm_head.weight": other}):
        assert torch.equal(loaded(order)["tokens.weight"], given["embed.weight"])


def test_every_fault_is_named_at_once() -> None:
    given = tensors()
    del given["embed.weight"], given["block.1.key.bias"]
    given |= {"surprise": torch.zeros(1), "block.0.value.bias": torch.zeros(3)}
    given["block.0.dense.weight"] = torch.zeros(2, 4)
    message = fault(given)
    assert "2 missing (block.1.key.bias, embed.weight)" in message
    assert "1 unexpected (surprise)" in message
    assert "2 of another shape (block.0.value.bias: (3,) instead of (2,)" in message
    assert "block.0.dense.weight: (2, 4) instead of (4, 2)" in message


def test_one_of_a_fused_three_is_missing_by_its_own_name() -> None:
    given = tensors()
    del given["block.0.key.weight"]
    assert "1 missing (block.0.key.weight)" in fault(given)


def test_a_long_list_is_cut() -> None:
    message = fault({"embed.weight": tensors()["embed.weight"]})
    assert "16 missing (" in message
    assert message.count("block.") == 5
    assert ", ...)" in message


def test_known_tensors_that_nobody_needs_are_passed_over() -> None:
    loaded({**tensors(), "block.0.position_ids": torch.zeros(1)}, ignored=r".*\.position_ids")


def test_the_first_rule_that_matches_the_whole_name_counts() -> None:
    rules = (Rule(r"a", ("short",)), Rule(r"(a.)", (r"left.\1", r"right.\1")), Rule(r".*", ("rest",)))
    assert list(sources("a", rules)) == [("short", WeightTarget("a", 0, 1))]
    assert list(sources("ab", rules)) == [("left.ab", WeightTarget("ab", 0, 2)), ("right.ab", WeightTarget("ab", 1, 2))]


def test_a_parameter_without_a_rule_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="no rule for the parameter new"):
        list(sources("new", RULES))
