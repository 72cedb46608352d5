"""Names of BLIP's parameters in a checkpoint; see :mod:`vlm.checkpoint.weight_rules`."""

from __future__ import annotations

from vlm.checkpoint.weight_rules import Rule

_VISION = r"vision_model.encoder.layers.\1"
_TEXT = r"text_decoder.bert.encoder.layer.\1"

RULES = (
    Rule(r"vision\.patches\.(.+)", (r"vision_model.embeddings.patch_embedding.\1",)),
    Rule(r"vision\.class_token", ("vision_model.embeddings.class_embedding",)),
    Rule(r"vision\.positions", ("vision_model.embeddings.position_embedding",)),
    Rule(r"vision\.transformer\.layers\.(\d+)\.attention\.qkv\.(.+)", (rf"{_VISION}.self_attn.qkv.\2",)),
    Rule(r"vision\.transformer\.layers\.(\d+)\.attention\.out\.(.+)", (rf"{_VISION}.self_attn.projection.\2",)),
    Rule(r"vision\.transformer\.layers\.(\d+)\.attention_norm\.(.+)", (rf"{_VISION}.layer_norm1.\2",)),
    Rule(r"vision\.transformer\.layers\.(\d+)\.mlp\.up\.(.+)", (rf"{_VISION}.mlp.fc1.\2",)),
    Rule(r"vision\.transformer\.layers\.(\d+)\.mlp\.down\.(.+)", (rf"{_VISION}.mlp.fc2.\2",)),
    Rule(r"vision\.transformer\.layers\.(\d+)\.mlp_norm\.(.+)", (rf"{_VISION}.layer_norm2.\2",)),
    Rule(r"vision\.transformer\.final_norm\.(.+)", (r"vision_model.post_layernorm.\1",)),
    Rule(
        r"text\.tokens\.weight",
        ("text_decoder.bert.embeddings.word_embeddings.weight",),
        aliases=("text_decoder.cls.predictions.decoder.weight",),
    ),
    Rule(r"text\.transformer\.positions\.weight", ("text_decoder.bert.embeddings.position_embeddings.weight",)),
    Rule(r"text\.transformer\.embedding_norm\.(.+)", (r"text_decoder.bert.embeddings.LayerNorm.\1",)),
    Rule(
        r"text\.transformer\.layers\.(\d+)\.attention\.qkv\.(.+)",
        tuple(rf"{_TEXT}.attention.self.{part}.\2" for part in ("query", "key", "value")),
    ),
    Rule(r"text\.transformer\.layers\.(\d+)\.attention\.out\.(.+)", (rf"{_TEXT}.attention.output.dense.\2",)),
    Rule(r"text\.transformer\.layers\.(\d+)\.attention_norm\.(.+)", (rf"{_TEXT}.attention.output.LayerNorm.\2",)),
    Rule(r"text\.transformer\.layers\.(\d+)\.cross\.query\.(.+)", (rf"{_TEXT}.crossattention.self.query.\2",)),
    Rule(
        r"text\.transformer\.layers\.(\d+)\.cross\.key_value\.(.+)",
        tuple(rf"{_TEXT}.crossattention.self.{part}.\2" for part in ("key", "value")),
    ),
    Rule(r"text\.transformer\.layers\.(\d+)\.cross\.out\.(.+)", (rf"{_TEXT}.crossattention.output.dense.\2",)),
    Rule(r"text\.transformer\.layers\.(\d+)\.cross_norm\.(.+)", (rf"{_TEXT}.crossattention.output.LayerNorm.\2",)),
    Rule(r"text\.transformer\.layers\.(\d+)\.mlp\.up\.(.+)", (rf"{_TEXT}.intermediate.dense.\2",)),
    Rule(r"text\.transformer\.layers\.(\d+)\.mlp\.down\.(.+)", (rf"{_TEXT}.output.dense.\2",)),
    Rule(r"text\.transformer\.layers\.(\d+)\.mlp_norm\.(.+)", (rf"{_TEXT}.output.LayerNorm.\2",)),
    Rule(r"text\.head\.dense\.(.+)", (r"text_decoder.cls.predictions.transform.dense.\1",)),
    Rule(r"text\.head\.norm\.(.+)", (r"text_decoder.cls.predictions.transform.LayerNorm.\1",)),
    Rule(
        r"text\.output_bias",
        ("text_decoder.cls.predictions.bias",),
        aliases=("text_decoder.cls.predictions.decoder.bias",),
    ),
)

IGNORED = r".*\.position_ids"
"""Buffers that old checkpoints hold; here they are computed."""
