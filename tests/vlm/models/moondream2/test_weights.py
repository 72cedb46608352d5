"""The published tensors are loaded, under each of the names that they have had."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.vlm.models.moondream2.driver import DATA, golden, load
from vlm.checkpoint.weight_rules import sources
from vlm.errors import CheckpointError
from vlm.loading import synthesize
from vlm.models.moondream2.model import FAMILY, Moondream2
from vlm.models.moondream2.synthetic import SIZES
from vlm.models.moondream2.weights import RULES, native_tensors

GIVEN = load_file(DATA / "model.safetensors")
"""The small model's tensors, under the published names."""

LISTED = json.loads((DATA / "published_2b_keys.json").read_text("utf-8"))

_TRAINED = (
    (r"vision\.patch_emb\.(.+)", r"vision_encoder.encoder.model.visual.patch_embed.linear.\1"),
    (r"vision\.pos_emb", r"vision_encoder.encoder.model.visual.pos_embed"),
    (r"vision\.post_ln\.(.+)", r"vision_encoder.encoder.model.visual.norm.\1"),
    (r"vision\.blocks\.(\d+)\.ln(\d)\.(.+)", r"vision_encoder.encoder.model.visual.blocks.\1.norm\2.\3"),
    (r"vision\.blocks\.(.+)", r"vision_encoder.encoder.model.visual.blocks.\1"),
    (r"vision\.proj_mlp\.(.+)", r"vision_encoder.projection.mlp.\1"),
    (r"text\.wte", r"text_model.transformer.embd.wte.weight"),
    (r"text\.blocks\.(\d+)\.attn\.qkv\.(.+)", r"text_model.transformer.h.\1.mixer.Wqkv.\2"),
    (r"text\.blocks\.(\d+)\.attn\.proj\.(.+)", r"text_model.transformer.h.\1.mixer.out_proj.\2"),
    (r"text\.blocks\.(.+)", r"text_model.transformer.h.\1"),
    (r"text\.post_ln\.(.+)", r"text_model.lm_head.ln.\1"),
    (r"text\.lm_head\.(.+)", r"text_model.lm_head.linear.\1"),
    (r"region\.coord_features", r"region_model.coordinate_features.weight"),
    (r"region\.size_features", r"region_model.size_features.weight"),
    (r"region\.coord_(.+)", r"region_model.coordinate_\1"),
    (r"region\.size_(.+)", r"region_model.size_\1"),
)


def test_the_published_model_has_our_names_and_shapes() -> None:
    """All 592 tensors, by a config.json that says nothing."""
    expected = {name: tuple(shape) for name, shape in LISTED["tensors"].items()}
    model = FAMILY.empty({"model_type": "moondream1", "config": {}})
    found = {name: tuple(one.shape) for key, one in model.named_parameters() for name, _ in sources(key, RULES)}
    assert len(expected) == 592
    assert found == expected
    assert sum(parameter.numel() for _, parameter in model.named_parameters()) == LISTED["n_params"]


def test_a_file_of_the_published_names_loads(tmp_path: Path) -> None:
    """Layer for layer, of tiny widths."""
    tiny = SIZES["tiny"]
    sections = tiny["config"]
    deep = {
        **sections,
        "text": {**sections["text"], "n_layers": 24},
        "vision": {**sections["vision"], "enc_n_layers": 27},
    }
    synthesize(FAMILY, tmp_path, {**tiny, "config": deep}, 1)
    assert set(load_file(tmp_path / "model.safetensors")) == set(LISTED["tensors"])
    load(tmp_path)


def test_half_a_billion_parameters_by_a_config_that_says_so() -> None:
    """The smaller model; what its config leaves out follows from the rest."""
    config = {
        "text": {"dim": 1024, "ff_dim": 4096, "n_heads": 16},
        "vision": {"enc_dim": 720, "enc_ff_dim": 2690, "enc_n_heads": 10, "proj_out_dim": 1024},
        "region": {"dim": 1024},
    }
    model = FAMILY.empty({"model_type": "moondream1", "config": config})
    assert sum(parameter.numel() for _, parameter in model.named_parameters()) == 631_889_382
    assert (model.cache.kv_heads, model.cache.head_dim) == (16, 64)


def renamed(folder: Path, change: Callable[[str, Tensor], tuple[str, Tensor]]) -> Path:
    shutil.copytree(DATA, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors", "images"))
    save_file(dict(change(name, tensor) for name, tensor in GIVEN.items()), folder / "model.safetensors")
    return folder


def without_prefix(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    return name.removeprefix("model."), tensor


def as_trained(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    short = name.removeprefix("model.")
    pattern, template = next(one for one in _TRAINED if re.fullmatch(one[0], short))
    return re.sub(pattern, template, short), tensor.t().contiguous() if short.endswith("_features") else tensor


def as_compiled(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    trained, tensor = as_trained(name, tensor)
    room, rest = trained.split(".", 1)
    return f"{room}._orig_mod.{rest}", tensor


@pytest.mark.parametrize("change", [without_prefix, as_trained, as_compiled])
def test_older_names_are_read_as_the_published_ones(
    tmp_path: Path, change: Callable[[str, Tensor], tuple[str, Tensor]]
) -> None:
    model, _ = load(renamed(tmp_path, change))
    expected: Moondream2 = golden()[0]
    for found, known in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(found, known)


def test_tables_that_are_computed_may_be_in_the_file(tmp_path: Path) -> None:
    folder = renamed(tmp_path, lambda name, tensor: (name, tensor))
    extra = {"model.text.attn_mask": torch.ones(1, 1, 4, 4, dtype=torch.bool), "model.text.freqs_cis": torch.ones(3)}
    save_file({**GIVEN, **extra}, folder / "model.safetensors")
    load(folder)


def test_what_is_missing_and_what_is_too_much_is_named(tmp_path: Path) -> None:
    def change(name: str, tensor: Tensor) -> tuple[str, Tensor]:
        return (name if name != "model.text.wte" else "model.text.wte.weight"), tensor

    with pytest.raises(CheckpointError, match=r"1 missing \(model\.text\.wte\) and 1 unexpected"):
        load(renamed(tmp_path, change))


def test_int4_is_refused_with_what_to_do(tmp_path: Path) -> None:
    packed = [("model.text.blocks.0.attn.qkv.weight.packed", torch.zeros(1, dtype=torch.uint8))]
    with pytest.raises(CheckpointError, match="packed as int4, which is not supported; use the bfloat16 revision"):
        list(native_tensors(packed))
    with pytest.raises(CheckpointError, match="int4"):
        FAMILY.empty({"config": {"text": {"group_size": 128}}})


@pytest.mark.parametrize("config", [[1], "big", {"text": 3}])
def test_a_config_of_another_form_is_an_error(config: object) -> None:
    with pytest.raises(CheckpointError, match="must be an object"):
        FAMILY.empty({"config": config})
