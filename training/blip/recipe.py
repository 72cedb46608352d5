"""BLIP's trainable: a caption to every image, sometimes begun with words that the caption must go on from."""

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
"""So many captions begin with a prefix."""


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
        init.spread(self.model, ("projection", "fc2", "output.dense"), skip=("predictions.decoder",))
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
        """The captions' words, and the grid."""
        seen = self.model.vision_model(pixel_values=batch.pixels).last_hidden_state
        grid_loss, grid = self.module["head"](seen[:, 1:], batch.shown)
        read, wanted = self._captions(batch)
        logits = self.model.text_decoder(
            input_ids=read, attention_mask=(read != 0).long(), encoder_hidden_states=seen[: len(read)], use_cache=False
        ).logits.float()
        counted = wanted != IGNORED
        loss = F.cross_entropy(logits[counted], wanted[counted])
        right = share(logits[counted].argmax(-1) == wanted[counted])
        metrics = {"words": right, "kind": grid.kind, "letter": grid.letter, "box": grid.box}
        return loss + 0.3 * grid_loss, metrics

    def _captions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the decoder reads, and what it should say at each place."""
        rows, wanted = [], []
        for scene in batch.scenes:
            caption = self._ids(sentences.plain(sentences.caption(scene)))
            prefix = self._ids(batch.rng.choice(PREFIXES)) if batch.rng.random() < _PREFIXED else []
            rows.append([self.words, *prefix, *caption])
            wanted.append([*[IGNORED] * len(prefix), *caption, _SEP])
        return padded(rows, 0), padded(wanted, IGNORED)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def export(self, folder: Path) -> None:
        """Weights, configuration, tokenizer and processor."""
        write_tokenizer(folder)
        write_model(self.model, generation(self.words), folder)


RECIPE = Recipe(
    "blip-large", TrainableBlip, SIDE, batch_size=32, pages=8, steps=5000, learning_rate=1.2e-3, pretrained_vision=True
)
