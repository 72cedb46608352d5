"""Synthetic checkpoints are complete and reproducible, and their values do not overflow in a deep model."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from vlm.checkpoint.synthesis import made_up_words, write_json, write_weights
from vlm.checkpoint.weight_rules import Rule, load_weights
from vlm.errors import CheckpointError
from vlm.loading import families, load, synthesize

RULES = (
    Rule(r"qkv\.(.+)", (r"query.\1", r"key.\1", r"value.\1")),
    Rule(r"tokens\.weight", ("embed",), aliases=("head",)),
    Rule(r"(.+)", (r"same.\1",)),
)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(64, 192)
        self.tokens = nn.Embedding(1000, 64)
        self.norm = nn.LayerNorm(64)


def synthesised(folder: Path, seed: int) -> dict[str, torch.Tensor]:
    folder.mkdir()
    with torch.device("meta"):
        model = Tiny()
    write_weights(folder, model, RULES, seed)
    tensors: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return tensors


def test_a_meta_model_is_written_under_the_checkpoints_names_and_loads(tmp_path: Path) -> None:
    tensors = synthesised(tmp_path / "one", 1)
    kinds = ("weight", "bias")
    fused = {f"{part}.{kind}" for part in ("query", "key", "value") for kind in kinds}
    assert set(tensors) == {*fused, "embed", "same.norm.weight", "same.norm.bias"}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    load_weights(Tiny(), tensors.items(), RULES)


def test_a_seed_gives_the_same_numbers_again_and_another_seed_gives_others(tmp_path: Path) -> None:
    one, again, other = (synthesised(tmp_path / name, seed) for name, seed in (("one", 1), ("again", 1), ("other", 2)))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_matrices_keep_the_scale_of_their_input_and_norms_are_near_one(tmp_path: Path) -> None:
    tensors = synthesised(tmp_path / "one", 1)
    assert float(tensors["query.weight"].float().std()) == pytest.approx(64**-0.5, rel=0.1)
    assert float(tensors["same.norm.weight"].float().mean()) == pytest.approx(1, abs=0.1)
    assert float(tensors["same.norm.bias"].float().mean()) == pytest.approx(0, abs=0.1)
    assert not torch.equal(tensors["query.weight"], tensors["key.weight"])


@pytest.mark.parametrize("name", dict(families()))
def test_a_synthetic_folder_without_one_tensor_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    """The same rules write and read a folder. This tests the reading, for the name of every tensor."""
    family = dict(families())[name]
    synthesize(family, tmp_path, family.sizes["tiny"], 1)
    tensors = load_file(tmp_path / "model.safetensors")
    gone = sorted(tensors)[len(tensors) // 2]
    del tensors[gone]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"1 missing \({gone}\)"):
        load(tmp_path, dtype="float32", device="cpu")


def test_words_are_distinct_and_short_first() -> None:
    words = list(itertools.islice(made_up_words(), 5000))
    assert len(set(words)) == 5000
    assert words[:2] == ["ba", "be"]
    assert [len(word) for word in words] == sorted(len(word) for word in words)


def test_json_goes_into_a_new_folder(tmp_path: Path) -> None:
    write_json(tmp_path / "new", {"config.json": {"model_type": "é"}})
    assert (tmp_path / "new" / "config.json").read_text(encoding="utf-8").strip().startswith("{")
