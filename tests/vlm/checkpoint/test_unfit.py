"""Folders that people have but that cannot be loaded: each is refused with advice of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlm.checkpoint.files import Checkpoint
from vlm.errors import CheckpointError
from vlm.loading import load

BLIP = Path(__file__).parents[3] / "miniatures" / "blip-large"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BLIP, tmp_path / "copy"))


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(folder, device="cpu")
    return str(caught.value)


def test_a_quantised_folder_is_named_by_its_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    said = refusal(folder)
    assert "has a quantization_config (gptq)" in said
    assert "Use the checkpoint that it was quantised from" in said


@pytest.mark.parametrize(
    "suffix", ["qweight", "qzeros", "weight.absmax", "weight.quant_state.bitsandbytes__nf4", "SCB"]
)
def test_quantised_tensors_that_config_does_not_mention(suffix: str, folder: Path) -> None:
    name = f"text_decoder.bert.encoder.layer.0.attention.self.query.{suffix}"
    save_file({**load_file(folder / "model.safetensors"), name: torch.zeros(1)}, folder / "model.safetensors")
    assert f"{name} is part of a quantised matrix (GPTQ, AWQ or bitsandbytes)" in refusal(folder)


def test_an_adapter_names_the_lines_that_merge_it(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    save_file({"base_model.model.q.lora_A.weight": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    said = refusal(tmp_path)
    assert "holds an adapter only (LoRA), not a whole model" in said
    assert "from_pretrained('org/base')" in said
    assert "merge_and_unload().save_pretrained('merged')" in said


def test_an_adapter_whose_config_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("[]")
    assert "from_pretrained('BASE_MODEL')" in refusal(tmp_path)


def test_an_adapter_beside_a_whole_model_does_not_matter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    assert Checkpoint.open(folder).tensor_names()


def test_a_model_saved_with_its_adapter_inside(folder: Path) -> None:
    name = "text_decoder.bert.encoder.layer.0.attention.self.query.lora_A.default.weight"
    save_file({**load_file(folder / "model.safetensors"), name: torch.zeros(1)}, folder / "model.safetensors")
    assert f"{name} belongs to an adapter that was not merged" in refusal(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_git_lfs_pointer_is_recognised(name: str, folder: Path) -> None:
    (folder / name).write_bytes(POINTER)
    said = refusal(folder)
    assert f"{name} in {folder} is a Git LFS pointer" in said
    assert "git lfs pull" in said
