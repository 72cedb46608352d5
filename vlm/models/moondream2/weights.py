"""Where Moondream 2's parameters lie in a checkpoint, in the published names and in those of its training."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import Tensor

from vlm.checkpoint.weight_rules import Rule, Tensors
from vlm.models.moondream2.config import int4_error

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
"""Tables that old checkpoints may carry and that are computed."""

_SEEN = r"vision_encoder\.encoder\.model\.visual"
_SAID = r"text_model\.transformer"
_TRAINED = (
    (rf"{_SEEN}\.patch_embed\.linear\.(.+)", r"vision.patch_emb.\1"),
    (rf"{_SEEN}\.pos_embed", r"vision.pos_emb"),
    (rf"{_SEEN}\.norm\.(.+)", r"vision.post_ln.\1"),
    (rf"{_SEEN}\.blocks\.(\d+)\.norm([12])\.(.+)", r"vision.blocks.\1.ln\2.\3"),
    (rf"{_SEEN}\.blocks\.(\d+)\.((?:attn|mlp)\..+)", r"vision.blocks.\1.\2"),
    (r"vision_encoder\.projection\.mlp\.(.+)", r"vision.proj_mlp.\1"),
    (rf"{_SAID}\.embd\.wte\.weight", r"text.wte"),
    (rf"{_SAID}\.h\.(\d+)\.mixer\.Wqkv\.(.+)", r"text.blocks.\1.attn.qkv.\2"),
    (rf"{_SAID}\.h\.(\d+)\.mixer\.out_proj\.(.+)", r"text.blocks.\1.attn.proj.\2"),
    (rf"{_SAID}\.h\.(\d+)\.((?:ln|mlp)\..+)", r"text.blocks.\1.\2"),
    (r"text_model\.lm_head\.ln\.(.+)", r"text.post_ln.\1"),
    (r"text_model\.lm_head\.linear\.(.+)", r"text.lm_head.\1"),
    (r"region_model\.(coordinate|size)_features\.weight", r"region.\1_features"),
    (r"region_model\.((?:coordinate|size)_(?:en|de)coder\..+)", r"region.\1"),
)
_TURNED = re.compile(r"region_model\.(?:coordinate|size)_features\.weight")


def published(tensors: Tensors) -> Iterator[tuple[str, Tensor]]:
    """Tensors with their published names, whichever of the accepted ones they have.

    Raises:
        CheckpointError: The weights are packed as int4.
    """
    for given, tensor in tensors:
        name = given.replace("._orig_mod", "")
        if name.endswith("weight.packed"):
            raise int4_error()
        yield _name(name), tensor.t() if _TURNED.fullmatch(name) else tensor


def _name(name: str) -> str:
    for pattern, template in _TRAINED:
        match = re.fullmatch(pattern, name)
        if match:
            return f"model.{match.expand(template).replace('.coordinate_', '.coord_')}"
    return name if name.startswith("model.") else f"model.{name}"
