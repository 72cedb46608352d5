"""Names of Kosmos-2's parameters in a checkpoint; see :mod:`vlm.checkpoint.weight_rules`."""

from __future__ import annotations

from vlm.checkpoint.weight_rules import Rule

_VISION_MODEL = "vision_model.model"
_VISION = rf"{_VISION_MODEL}.encoder.layers.\1"
_TEXT_MODEL = "text_model.model"
_TEXT = rf"{_TEXT_MODEL}.layers.\1"
_LATENT = "image_to_text_projection"

RULES = (
    Rule(r"vision\.patches\.weight", (f"{_VISION_MODEL}.embeddings.patch_embedding.weight",)),
    Rule(r"vision\.class_token", (f"{_VISION_MODEL}.embeddings.class_embedding",)),
    Rule(r"vision\.positions", (f"{_VISION_MODEL}.embeddings.position_embedding.weight",)),
    Rule(r"vision\.transformer\.embedding_norm\.(.+)", (rf"{_VISION_MODEL}.pre_layrnorm.\1",)),
    Rule(
        r"vision\.transformer\.layers\.(\d+)\.attention\.qkv\.(.+)",
        tuple(rf"{_VISION}.self_attn.{part}_proj.\2" for part in "qkv"),
    ),
    Rule(r"vision\.transformer\.layers\.(\d+)\.attention\.out\.(.+)", (rf"{_VISION}.self_attn.out_proj.\2",)),
    Rule(r"vision\.transformer\.layers\.(\d+)\.attention_norm\.(.+)", (rf"{_VISION}.layer_norm1.\2",)),
    Rule(r"vision\.transformer\.layers\.(\d+)\.mlp\.up\.(.+)", (rf"{_VISION}.mlp.fc1.\2",)),
    Rule(r"vision\.transformer\.layers\.(\d+)\.mlp\.down\.(.+)", (rf"{_VISION}.mlp.fc2.\2",)),
    Rule(r"vision\.transformer\.layers\.(\d+)\.mlp_norm\.(.+)", (rf"{_VISION}.layer_norm2.\2",)),
    Rule(r"vision\.transformer\.final_norm\.(.+)", (rf"{_VISION_MODEL}.post_layernorm.\1",)),
    Rule(r"latents\.dense\.(.+)", (rf"{_LATENT}.dense.\1",)),
    Rule(r"latents\.queries", (f"{_LATENT}.latent_query",)),
    Rule(r"latents\.attention\.query\.(.+)", (rf"{_LATENT}.x_attn.q_proj.\1",)),
    Rule(r"latents\.attention\.key_value\.(.+)", tuple(rf"{_LATENT}.x_attn.{part}_proj.\1" for part in "kv")),
    Rule(r"latents\.attention\.out\.(.+)", (rf"{_LATENT}.x_attn.out_proj.\1",)),
    Rule(r"text\.tokens\.weight", (f"{_TEXT_MODEL}.embed_tokens.weight",), aliases=("text_model.lm_head.weight",)),
    Rule(
        r"text\.transformer\.layers\.(\d+)\.attention\.qkv\.(.+)",
        tuple(rf"{_TEXT}.self_attn.{part}_proj.\2" for part in "qkv"),
    ),
    Rule(r"text\.transformer\.layers\.(\d+)\.attention\.inner_norm\.(.+)", (rf"{_TEXT}.self_attn.inner_attn_ln.\2",)),
    Rule(r"text\.transformer\.layers\.(\d+)\.attention\.out\.(.+)", (rf"{_TEXT}.self_attn.out_proj.\2",)),
    Rule(r"text\.transformer\.layers\.(\d+)\.attention_norm\.(.+)", (rf"{_TEXT}.self_attn_layer_norm.\2",)),
    Rule(r"text\.transformer\.layers\.(\d+)\.mlp\.up\.(.+)", (rf"{_TEXT}.ffn.fc1.\2",)),
    Rule(r"text\.transformer\.layers\.(\d+)\.mlp\.inner_norm\.(.+)", (rf"{_TEXT}.ffn.ffn_layernorm.\2",)),
    Rule(r"text\.transformer\.layers\.(\d+)\.mlp\.down\.(.+)", (rf"{_TEXT}.ffn.fc2.\2",)),
    Rule(r"text\.transformer\.layers\.(\d+)\.mlp_norm\.(.+)", (rf"{_TEXT}.final_layer_norm.\2",)),
    Rule(r"text\.transformer\.final_norm\.(.+)", (rf"{_TEXT_MODEL}.layer_norm.\1",)),
)

IGNORED = r".*\.position_ids|text_model\.model\.embed_positions\.weights"
"""Buffers that old checkpoints hold; here they are computed."""
