"""Load the weights of :mod:`training.vision.recipe` into the vision encoders of other models, under their names.

The three encoders differ slightly: a norm before the first layer, a fused projection, an approximation of GELU. The
features survive these differences, and further training adapts the encoder.
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
class VisionWeights:
    """Trained weights: the encoder's, under the names of transformers' ``BlipVisionModel``, and the grid head's."""

    encoder: Weights
    head: Weights


def read_vision_weights(state: Path) -> VisionWeights:
    """Read the encoder and the grid head from a saved training state."""
    with safe_open(state, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    encoder, head = (
        {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        for prefix in (_ENCODER, _HEAD)
    )
    return VisionWeights(encoder, head)


@torch.no_grad()
def copy_weights(module: nn.Module, weights: Weights) -> None:
    """Copy ``weights`` into the parameters of the same names.

    Raises:
        KeyError: ``module`` has no parameter of that name.
    """
    parameters = dict(module.named_parameters())
    for name, value in weights.items():
        parameters[name].copy_(value.view_as(parameters[name]))


def to_clip(vision: Weights) -> Weights:
    """For transformers' ``CLIPVisionModel``: separate q, k and v, a table of positions, no bias of the patches."""
    out: dict[str, Tensor] = {}
    for name, value in vision.items():
        fused = re.fullmatch(r"(encoder\.layers\.\d+\.self_attn)\.qkv\.(weight|bias)", name)
        if fused:
            parts = zip("qkv", value.chunk(3), strict=True)
            out |= {f"{fused[1]}.{which}_proj.{fused[2]}": part for which, part in parts}
        elif not name.startswith("embeddings."):
            out[name.replace(".self_attn.projection.", ".self_attn.out_proj.")] = value
    positions = vision["embeddings.position_embedding"][0].clone()
    positions[1:] += vision["embeddings.patch_embedding.bias"]
    return out | {
        "embeddings.class_embedding": vision["embeddings.class_embedding"],
        "embeddings.patch_embedding.weight": vision["embeddings.patch_embedding.weight"],
        "embeddings.position_embedding.weight": positions,
    }


def to_moondream(vision: Weights) -> Weights:
    """For :mod:`vlm.models.moondream2`: a linear layer on patches of pixels in -1..1, no class token."""
    out: dict[str, Tensor] = {}
    for name, value in vision.items():
        layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if layer:
            out[f"transformer.layers.{layer[1]}.{_MOONDREAM[layer[2]]}.{layer[3]}"] = value
    for kind in ("weight", "bias"):
        out[f"transformer.final_norm.{kind}"] = vision[f"post_layernorm.{kind}"]
    mean, std = torch.tensor(CLIP_MEAN), torch.tensor(CLIP_STD)
    patches = vision["embeddings.patch_embedding.weight"]
    shift = torch.einsum("oikl,i->o", patches, (0.5 - mean) / std)
    return out | {
        "patches.weight": (patches * (0.5 / std)[None, :, None, None]).flatten(1),
        "patches.bias": vision["embeddings.patch_embedding.bias"] + shift,
        "positions": vision["embeddings.position_embedding"][:, 1:],
    }
