"""Names of Moondream 2's parameters in a checkpoint: the published ones, and those of its training code."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import Tensor

from vlm.checkpoint.weight_rules import Rule, Tensors
from vlm.models.moondream2.revisions import int4_error

_VISION = r"model.vision.blocks.\1"
_TEXT = r"model.text.blocks.\1"

RULES = (
    Rule(r"vision\.positions", ("model.vision.pos_emb",)),
    Rule(r"vision\.patches\.(.+)", (r"model.vision.patch_emb.\1",)),
    Rule(r"vision\.transformer\.layers\.(\d+)\.attention_norm\.(.+)", (rf"{_VISION}.ln1.\2",)),
    Rule(r"vision\.transformer\.layers\.(\d+)\.mlp_norm\.(.+)", (rf"{_VISION}.ln2.\2",)),
    Rule(r"vision\.transformer\.layers\.(\d+)\.attention\.qkv\.(.+)", (rf"{_VISION}.attn.qkv.\2",)),
    Rule(r"vision\.transformer\.layers\.(\d+)\.attention\.out\.(.+)", (rf"{_VISION}.attn.proj.\2",)),
    Rule(r"vision\.transformer\.layers\.(\d+)\.mlp\.up\.(.+)", (rf"{_VISION}.mlp.fc1.\2",)),
    Rule(r"vision\.transformer\.layers\.(\d+)\.mlp\.down\.(.+)", (rf"{_VISION}.mlp.fc2.\2",)),
    Rule(r"vision\.transformer\.final_norm\.(.+)", (r"model.vision.post_ln.\1",)),
    Rule(r"vision\.projection\.up\.(.+)", (r"model.vision.proj_mlp.fc1.\1",)),
    Rule(r"vision\.projection\.down\.(.+)", (r"model.vision.proj_mlp.fc2.\1",)),
    Rule(r"text\.tokens", ("model.text.wte",)),
    Rule(r"text\.transformer\.layers\.(\d+)\.attention_norm\.(.+)", (rf"{_TEXT}.ln.\2",)),
    Rule(r"text\.transformer\.layers\.(\d+)\.attention\.qkv\.(.+)", (rf"{_TEXT}.attn.qkv.\2",)),
    Rule(r"text\.transformer\.layers\.(\d+)\.attention\.out\.(.+)", (rf"{_TEXT}.attn.proj.\2",)),
    Rule(r"text\.transformer\.layers\.(\d+)\.mlp\.up\.(.+)", (rf"{_TEXT}.mlp.fc1.\2",)),
    Rule(r"text\.transformer\.layers\.(\d+)\.mlp\.down\.(.+)", (rf"{_TEXT}.mlp.fc2.\2",)),
    Rule(r"text\.norm\.(.+)", (r"model.text.post_ln.\1",)),
    Rule(r"text\.head\.(.+)", (r"model.text.lm_head.\1",)),
    Rule(r"region\.coordinate_features", ("model.region.coord_features",)),
    Rule(r"region\.size_features", ("model.region.size_features",)),
    Rule(r"region\.coordinate_encoder\.(.+)", (r"model.region.coord_encoder.\1",)),
    Rule(r"region\.size_encoder\.(.+)", (r"model.region.size_encoder.\1",)),
    Rule(r"region\.coordinate_decoder\.up\.(.+)", (r"model.region.coord_decoder.fc1.\1",)),
    Rule(r"region\.coordinate_decoder\.down\.(.+)", (r"model.region.coord_decoder.fc2.\1",)),
    Rule(r"region\.size_decoder\.up\.(.+)", (r"model.region.size_decoder.fc1.\1",)),
    Rule(r"region\.size_decoder\.down\.(.+)", (r"model.region.size_decoder.fc2.\1",)),
)

IGNORED = r"model\.text\.(attn_mask|freqs_cis)"
"""Tables that old checkpoints may hold; here they are computed."""

_VISION_MODEL = r"vision_encoder\.encoder\.model\.visual"
_TEXT_MODEL = r"text_model\.transformer"
_TRAINING_NAMES = (
    (rf"{_VISION_MODEL}\.patch_embed\.linear\.(.+)", r"vision.patch_emb.\1"),
    (rf"{_VISION_MODEL}\.pos_embed", r"vision.pos_emb"),
    (rf"{_VISION_MODEL}\.norm\.(.+)", r"vision.post_ln.\1"),
    (rf"{_VISION_MODEL}\.blocks\.(\d+)\.norm([12])\.(.+)", r"vision.blocks.\1.ln\2.\3"),
    (rf"{_VISION_MODEL}\.blocks\.(\d+)\.((?:attn|mlp)\..+)", r"vision.blocks.\1.\2"),
    (r"vision_encoder\.projection\.mlp\.(.+)", r"vision.proj_mlp.\1"),
    (rf"{_TEXT_MODEL}\.embd\.wte\.weight", r"text.wte"),
    (rf"{_TEXT_MODEL}\.h\.(\d+)\.mixer\.Wqkv\.(.+)", r"text.blocks.\1.attn.qkv.\2"),
    (rf"{_TEXT_MODEL}\.h\.(\d+)\.mixer\.out_proj\.(.+)", r"text.blocks.\1.attn.proj.\2"),
    (rf"{_TEXT_MODEL}\.h\.(\d+)\.((?:ln|mlp)\..+)", r"text.blocks.\1.\2"),
    (r"text_model\.lm_head\.ln\.(.+)", r"text.post_ln.\1"),
    (r"text_model\.lm_head\.linear\.(.+)", r"text.lm_head.\1"),
    (r"region_model\.(coordinate|size)_features\.weight", r"region.\1_features"),
    (r"region_model\.((?:coordinate|size)_(?:en|de)coder\..+)", r"region.\1"),
)
_TRANSPOSED = re.compile(r"region_model\.(?:coordinate|size)_features\.weight")


def native_tensors(tensors: Tensors) -> Iterator[tuple[str, Tensor]]:
    """Tensors with their published names, from a checkpoint in either naming.

    Raises:
        CheckpointError: The weights are packed as int4.
    """
    for given, tensor in tensors:
        name = given.replace("._orig_mod", "")
        if name.endswith("weight.packed"):
            raise int4_error()
        yield _name(name), tensor.t() if _TRANSPOSED.fullmatch(name) else tensor


def _name(name: str) -> str:
    for pattern, template in _TRAINING_NAMES:
        match = re.fullmatch(pattern, name)
        if match:
            return f"model.{match.expand(template).replace('.coordinate_', '.coord_')}"
    return name if name.startswith("model.") else f"model.{name}"
