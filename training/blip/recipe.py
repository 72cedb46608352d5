"""BLIP's recipe: a caption for every image, some of them after a given beginning."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BlipForConditionalGeneration

from training import init
from training.blip.files import PREFIXES, configuration, generation, write_tokenizer
from training.data import sentences
from training.data.batches import Batch, Batches
from training.export import fingerprint, write_model
from training.grid import GridHead
from training.losses import IGNORED, padded, share
from training.recipe import Metrics, Recipe
from training.vision.recipe import CELLS, SIDE, WIDTH
from training.vision.transfer import VisionWeights, copy_weights

_SEP = 3
_PREFIXED = 0.3
"""Share of the captions that begin with a given prefix."""


class TrainableBlip:
    """Implements :class:`training.recipe.TrainableModel`."""

    def __init__(self, batches: Batches, vision: VisionWeights | None) -> None:  # noqa: ARG002 - part of the contract
        torch.manual_seed(0)
        with TemporaryDirectory() as folder:
            self.tokenizer = write_tokenizer(Path(folder))
            self.fingerprint = fingerprint(Path(folder) / "tokenizer.json")
        self.words = len(self.tokenizer)
        self.model: Any = BlipForConditionalGeneration._from_config(
            configuration(self.words), attn_implementation="eager"
        )
        init.scale_layers(self.model, ("projection", "fc2", "output.dense"), skip=("predictions.decoder",))
        with torch.no_grad():
            embeddings = self.model.text_decoder.bert.embeddings
            embeddings.word_embeddings.weight.normal_(0, 0.05)
            embeddings.position_embeddings.weight.normal_(0, 0.03)
        head = GridHead(WIDTH, CELLS)
        if vision is not None:
            copy_weights(self.model.vision_model, vision.encoder)
            copy_weights(head, vision.head)
        self.module = nn.ModuleDict({"model": self.model, "head": head})
        self._ids = lru_cache(maxsize=200_000)(self._encode)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Cross-entropy of the captions' tokens, and the loss of the grid head."""
        features = self.model.vision_model(pixel_values=batch.pixels).last_hidden_state
        grid_loss, grid = self.module["head"](features[:, 1:], batch.all_scenes)
        inputs, targets = self._captions(batch)
        logits = self.model.text_decoder(
            input_ids=inputs,
            attention_mask=(inputs != 0).long(),
            encoder_hidden_states=features[: len(inputs)],
            use_cache=False,
        ).logits.float()
        counts = targets != IGNORED
        loss = F.cross_entropy(logits[counts], targets[counts])
        accuracy = share(logits[counts].argmax(-1) == targets[counts])
        metrics = {"words": accuracy, "kind": grid.kind, "letter": grid.letter, "box": grid.box}
        return loss + 0.3 * grid_loss, metrics

    def _captions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Token ids for the decoder, and the target at each position: two tensors ``[scenes, longest]``."""
        rows, targets = [], []
        for scene in batch.scenes:
            caption = self._ids(sentences.plain(sentences.caption(scene)))
            prefix = self._ids(batch.rng.choice(PREFIXES)) if batch.rng.random() < _PREFIXED else []
            rows.append([self.words, *prefix, *caption])
            targets.append([*[IGNORED] * len(prefix), *caption, _SEP])
        return padded(rows, 0), padded(targets, IGNORED)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def export(self, folder: Path) -> None:
        """Write weights, configuration, tokenizer and image processor."""
        write_tokenizer(folder)
        write_model(self.model, generation(self.words), folder)


RECIPE = Recipe(
    "blip-large", TrainableBlip, SIDE, batch_size=32, pages=8, steps=5000, learning_rate=1.2e-3, pretrained_vision=True
)
