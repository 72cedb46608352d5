"""Pretraining of the vision encoder alone, with a dense label for every cell of its grid.

A step costs a fifth of a step with a language model, and three models start from the result
(:mod:`training.vision.transfer`). The encoder is not published by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BlipVisionConfig, BlipVisionModel

from training import init
from training.data.batches import Batch, Batches
from training.grid import GridHead
from training.recipe import Metrics, Recipe
from training.vision.transfer import VisionWeights

SIDE, PATCH = 96, 12
WIDTH, LAYERS, HEADS, HIDDEN = 128, 4, 4, 256
CELLS = SIDE // PATCH


class TrainableVision:
    """Implements :class:`training.recipe.TrainableModel`; its model is transformers' BLIP vision encoder."""

    fingerprint = ""  # it has no vocabulary

    def __init__(self, batches: Batches, vision: VisionWeights | None = None) -> None:  # noqa: ARG002 - part of the contract
        torch.manual_seed(0)
        config = BlipVisionConfig(
            hidden_size=WIDTH, intermediate_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
            image_size=SIDE, patch_size=PATCH, hidden_act="gelu", layer_norm_eps=1e-5,
        )  # fmt: skip
        self.model: Any = BlipVisionModel._from_config(config, attn_implementation="eager")
        init.scale_layers(self.model, ("projection", "fc2"))
        with torch.no_grad():
            embeddings = self.model.embeddings
            embeddings.class_embedding.normal_(0, 0.02)
            embeddings.position_embedding.normal_(0, 0.02)
            embeddings.position_embedding[0, 1:] = init.grid_sinusoids(CELLS, WIDTH) * 0.3
            embeddings.patch_embedding.bias.zero_()
            init.whiten(embeddings.patch_embedding.weight, batches.first_images(600), PATCH, gain=0.7)
        self.module = nn.ModuleDict({"model": self.model, "head": GridHead(WIDTH, CELLS)})

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """The loss of the grid head."""
        features = self.model(pixel_values=batch.pixels).last_hidden_state
        loss, grid = self.module["head"](features[:, 1:], batch.all_scenes)
        return loss, {"kind": grid.kind, "letter": grid.letter, "box": grid.box}

    def export(self, folder: Path) -> None:
        """Writes nothing: other recipes read the training state."""


RECIPE = Recipe(
    "vision",
    TrainableVision,
    SIDE,
    batch_size=40,
    pages=24,
    steps=4400,
    learning_rate=1.5e-3,
    seed="sight",  # this recipe's name when the bundled checkpoints were trained: it repeats their batches
)
