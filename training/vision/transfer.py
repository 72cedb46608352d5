"""Seen shapes handed on: the weights of :mod:`training.vision.recipe` under the names of other vision transformers.

Owns the renaming. The three encoders differ in little: a norm before the first layer, a fused projection, an
approximation of GELU; what was learnt survives it, and training mends the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from training.data.normalisation import CLIP_MEAN, CLIP_STD

Weights = Mapping[str, Tensor]

_ENCODER, _HEAD = "weight model.", "weight head."
_MOONDREAM = {
    "layer_norm1": "attention_norm", "layer_norm2": "mlp_norm", "self_attn.qkv": "attention.qkv",
    "self_attn.projection": "attention.out", "mlp.fc1": "mlp.up", "mlp.fc2": "mlp.down",
}  # fmt: skip


@dataclass(frozen=True)
class Sight:
    """What was learnt: the encoder by its names in transformers' BLIP vision encoder, and the head of the grid."""

    encoder: Weights
    head: Weights


def read_sight(state: Path) -> Sight:
    """The encoder and the head of a saved training state."""
    with safe_open(state, framework="pt") as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    encoder, head = (
        {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}
        for prefix in (_ENCODER, _HEAD)
    )
    return Sight(encoder, head)


@torch.no_grad()
def give(module: nn.Module, weights: Weights) -> None:
    """Copy ``weights`` into the parameters of the same names; all must be there."""
    known = dict(module.named_parameters())
    for name, value in weights.items():
        known[name].copy_(value.view_as(known[name]))


def as_clip(sight: Weights) -> Weights:
    """For transformers' CLIP encoders: projections apart, positions in a table, no bias of the patches."""
    out: dict[str, Tensor] = {}
    for name, value in sight.items():
        fused = re.fullmatch(r"(encoder\.layers\.\d+\.self_attn)\.qkv\.(weight|bias)", name)
        if fused:
            parts = zip("qkv", value.chunk(3), strict=True)
            out |= {f"{fused[1]}.{which}_proj.{fused[2]}": part for which, part in parts}
        elif not name.startswith("embeddings."):
            out[name.replace(".self_attn.projection.", ".self_attn.out_proj.")] = value
    positions = sight["embeddings.position_embedding"][0].clone()
    positions[1:] += sight["embeddings.patch_embedding.bias"]
    return out | {
        "embeddings.class_embedding": sight["embeddings.class_embedding"],
        "embeddings.patch_embedding.weight": sight["embeddings.patch_embedding.weight"],
        "embeddings.position_embedding.weight": positions,
    }


def as_moondream(sight: Weights) -> Weights:
    """For our own Moondream 2: a linear layer on patches of pixels in -1..1, no class position."""
    out: dict[str, Tensor] = {}
    for name, value in sight.items():
        layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if layer:
            out[f"transformer.layers.{layer[1]}.{_MOONDREAM[layer[2]]}.{layer[3]}"] = value
    for kind in ("weight", "bias"):
        out[f"transformer.final_norm.{kind}"] = sight[f"post_layernorm.{kind}"]
    mean, std = torch.tensor(CLIP_MEAN), torch.tensor(CLIP_STD)
    patches = sight["embeddings.patch_embedding.weight"]
    shift = torch.einsum("oikl,i->o", patches, (0.5 - mean) / std)
    return out | {
        "patches.weight": (patches * (0.5 / std)[None, :, None, None]).flatten(1),
        "patches.bias": sight["embeddings.patch_embedding.bias"] + shift,
        "positions": sight["embeddings.position_embedding"][:, 1:],
    }
