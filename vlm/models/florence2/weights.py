"""Names of Florence-2's parameters in a checkpoint: those of transformers, and Microsoft's original ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from vlm.checkpoint.weight_rules import Rule
from vlm.errors import CheckpointError

_STAGE = r"model.vision_tower.blocks.\1.\2"
_PROJECTOR = "model.multi_modal_projector"
_BART = r"model.language_model.\1.layers.\2"
_SHARED = "model.language_model.shared.weight"
_LAYER = r"bart\.(encoder|decoder)\.layers\.(\d+)"


def _blocks(ours: str, theirs: str) -> tuple[Rule, Rule]:
    """Rules for one part of the window block and of the channel block; the pattern ``ours`` ends with a group."""
    return (
        Rule(rf"vision\.stages\.(\d+)\.spatial\.(\d+)\.{ours}", (rf"{_STAGE}.spatial_block.{theirs}",)),
        Rule(
            rf"vision\.stages\.(\d+)\.channel\.(\d+)\.{ours}",
            (rf"{_STAGE}.channel_block.{theirs.replace('window_attn', 'channel_attn')}",),
        ),
    )


RULES = (
    Rule(r"vision\.stages\.(\d+)\.embedding\.(.+)", (r"model.vision_tower.convs.\1.\2",)),
    *_blocks(r"(conv[12]|norm[12])\.(.+)", r"\3.\4"),
    *_blocks(r"attention\.qkv\.(.+)", r"window_attn.qkv.\3"),
    *_blocks(r"attention\.out\.(.+)", r"window_attn.proj.\3"),
    *_blocks(r"mlp\.up\.(.+)", r"ffn.fc1.\3"),
    *_blocks(r"mlp\.down\.(.+)", r"ffn.fc2.\3"),
    Rule(r"projector\.rows", (f"{_PROJECTOR}.image_position_embed.row_embeddings.weight",)),
    Rule(r"projector\.columns", (f"{_PROJECTOR}.image_position_embed.column_embeddings.weight",)),
    Rule(r"projector\.frames", (f"{_PROJECTOR}.visual_temporal_embed.pos_idx_to_embed",)),
    Rule(r"projector\.projection\.weight", (f"{_PROJECTOR}.image_projection.weight",)),
    Rule(r"projector\.norm\.(.+)", (rf"{_PROJECTOR}.image_proj_norm.\1",)),
    Rule(
        r"bart\.tokens\.weight",
        (_SHARED,),
        aliases=(
            "lm_head.weight",
            "model.language_model.encoder.embed_tokens.weight",
            "model.language_model.decoder.embed_tokens.weight",
        ),
    ),
    Rule(r"bart\.(encoder|decoder)\.positions\.weight", (r"model.language_model.\1.embed_positions.weight",)),
    Rule(r"bart\.(encoder|decoder)\.embedding_norm\.(.+)", (r"model.language_model.\1.layernorm_embedding.\2",)),
    Rule(rf"{_LAYER}\.attention\.qkv\.(.+)", tuple(rf"{_BART}.self_attn.{part}_proj.\3" for part in "qkv")),
    Rule(rf"{_LAYER}\.attention\.out\.(.+)", (rf"{_BART}.self_attn.out_proj.\3",)),
    Rule(rf"{_LAYER}\.attention_norm\.(.+)", (rf"{_BART}.self_attn_layer_norm.\3",)),
    Rule(rf"{_LAYER}\.cross\.query\.(.+)", (rf"{_BART}.encoder_attn.q_proj.\3",)),
    Rule(rf"{_LAYER}\.cross\.key_value\.(.+)", tuple(rf"{_BART}.encoder_attn.{part}_proj.\3" for part in "kv")),
    Rule(rf"{_LAYER}\.cross\.out\.(.+)", (rf"{_BART}.encoder_attn.out_proj.\3",)),
    Rule(rf"{_LAYER}\.cross_norm\.(.+)", (rf"{_BART}.encoder_attn_layer_norm.\3",)),
    Rule(rf"{_LAYER}\.mlp\.up\.(.+)", (rf"{_BART}.fc1.\3",)),
    Rule(rf"{_LAYER}\.mlp\.down\.(.+)", (rf"{_BART}.fc2.\3",)),
    Rule(rf"{_LAYER}\.mlp_norm\.(.+)", (rf"{_BART}.final_layer_norm.\3",)),
)

_ORIGINAL_PROJECTION = "image_projection"
_ORIGINAL_BIAS = "language_model.final_logits_bias"
_BLOCK = r"^vision_tower\.(blocks\.\d+\.\d+\.(?:spatial|channel)_block)\."
_ORIGINAL = (
    (r"^vision_tower\.convs\.(\d+)\.proj\.", r"model.vision_tower.convs.\1.conv."),
    (r"^vision_tower\.convs\.(\d+)\.norm\.", r"model.vision_tower.convs.\1.norm."),
    (_BLOCK + r"conv([12])\.fn\.dw\.", r"model.vision_tower.\1.conv\2."),
    (_BLOCK + r"(?:window|channel)_attn\.norm\.", r"model.vision_tower.\1.norm1."),
    (_BLOCK + r"(window|channel)_attn\.fn\.", r"model.vision_tower.\1.\2_attn."),
    (_BLOCK + r"ffn\.norm\.", r"model.vision_tower.\1.norm2."),
    (_BLOCK + r"ffn\.fn\.net\.", r"model.vision_tower.\1.ffn."),
    (r"^image_proj_norm\.", f"{_PROJECTOR}.image_proj_norm."),
    (r"^image_pos_embed\.", f"{_PROJECTOR}.image_position_embed."),
    (r"^visual_temporal_embed\.", f"{_PROJECTOR}.visual_temporal_embed."),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^language_model\.lm_head\.", "lm_head."),
)


def native_tensors(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Tensors with transformers' names, from a checkpoint in either naming.

    Two tensors of the original upload differ in more than the name: its projection multiplies from the right, so it is
    transposed, and the bias of its output, which is always zero, is dropped.
    """
    for name, tensor in tensors:
        if name == _ORIGINAL_PROJECTION:
            yield f"{_PROJECTOR}.image_projection.weight", tensor.t()
        elif name == _ORIGINAL_BIAS:
            if tensor.any():
                raise CheckpointError(f"The tensor {name} is not zero; Florence-2's output has no bias.")
        else:
            yield _native_name(name), tensor


def _native_name(name: str) -> str:
    for pattern, replacement in _ORIGINAL:
        renamed, changed = re.subn(pattern, replacement, name)
        if changed:
            return renamed
    return name


def native_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with transformers' names, from a checkpoint in either naming."""
    vision = dict(config.get("vision_config") or {})
    if "dim_embed" in vision:
        vision["embed_dim"] = vision.pop("dim_embed")
        vision["max_position_embeddings"] = vision.pop("image_pos_embed", {}).get("max_pos_embeddings", 50)
        frames = vision.pop("visual_temporal_embedding", {})
        vision["max_temporal_embeddings"] = frames.get("max_temporal_embeddings", 100)
        vision.setdefault("projection_dim", config.get("projection_dim"))
    return {**config, "vision_config": vision}
