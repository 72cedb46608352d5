"""Kosmos-2's trainable: several exercises on each image, all of which share what stands before them in the sequence."""

from __future__ import annotations

from functools import lru_cache
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, Kosmos2ForConditionalGeneration

from training import init
from training.data.batches import Batch, Batches
from training.export import fingerprint, write_model
from training.grid import GridHead
from training.kosmos2.files import LATENTS, configuration, generation, write_tokenizer
from training.kosmos2.tasks import Exercise, chosen
from training.losses import IGNORED, Places, by_length, padded, token_loss
from training.recipe import Metrics, Recipe
from training.vision.recipe import CELLS, SIDE, WIDTH
from training.vision.transfer import VisionWeights, copy_weights, to_clip
from vlm.checkpoint.files import Checkpoint
from vlm.models.kosmos2.vocabulary import CELLS as PLACES
from vlm.models.kosmos2.vocabulary import GRID, Vocabulary

_BOS, _PAD, _EOS = 0, 1, 2
_EXERCISES = 4
_REACH = 0.7
"""Standard deviation, in cells, of the bell around a corner."""
_FAINT, _SHARP = 0.1, 12.0
"""Size of the latent queries, and how sure they are of their patches."""


class TrainableKosmos2:
    """Implements :class:`training.recipe.TrainableModel`."""

    def __init__(self, batches: Batches, vision: VisionWeights | None) -> None:
        torch.manual_seed(0)
        with TemporaryDirectory() as folder:
            self.words = len(write_tokenizer(Path(folder)))
            self.fingerprint = fingerprint(Path(folder) / "tokenizer.json")
            (Path(folder) / "config.json").write_text('{"model_type": "kosmos-2"}')
            self.vocabulary = Vocabulary.from_checkpoint(Checkpoint.open(folder))
        self.model: Any = Kosmos2ForConditionalGeneration._from_config(
            configuration(self.words), attn_implementation="eager"
        )
        tags = self.vocabulary.tags
        self.head = (_BOS, tags["<image>"], *range(_EOS + 2, _EOS + 2 + LATENTS), tags["</image>"])
        line = init.neighbours(GRID, _REACH)
        bells = torch.einsum("ab,cd->acbd", line, line).reshape(GRID**2, GRID**2)
        self.places = Places(tags[PLACES[0]], bells, weight=1.0)
        self._begin()
        head = GridHead(WIDTH, CELLS)
        if vision is not None:
            copy_weights(self.model.vision_model.model, to_clip(vision.encoder))
            copy_weights(head, vision.head)
        self._begin_latents(batches.sample(256))
        self.module = nn.ModuleDict({"model": self.model, "head": head})
        self._ids = lru_cache(maxsize=20_000)(self._encode)

    @torch.no_grad()
    def _begin(self) -> None:
        model = self.model
        init.spread(model, ("out_proj", "fc2"), skip=("lm_head",))
        table = model.get_input_embeddings().weight
        table.normal_(0, 0.05)
        table[self.places.first : self.places.first + GRID**2] = init.smooth_plane(GRID, table.shape[1])

    @torch.no_grad()
    def _begin_latents(self, pixels: Tensor) -> None:
        """Every latent query looks at one patch: keys are where a patch is, as far as that can be read off linearly.

        Drawn at random, queries look at each other, and all places blur for thousands of steps.
        """
        projection = self.model.image_to_text_projection
        projection.dense.weight.normal_(0, 1.0)  # what it reads has unit length
        projection.x_attn.out_proj.weight.mul_(0.5)
        patches = projection.dense(self._seen(pixels)[:, 1:])
        names = init.shared_out(init.grid_waves(int(LATENTS**0.5), WIDTH), projection.x_attn.num_heads)
        weight, bias = init.fitted(patches.flatten(0, 1), names.repeat(len(patches), 1))
        projection.x_attn.k_proj.weight.copy_(weight)
        projection.x_attn.k_proj.bias.copy_(bias)
        projection.latent_query.copy_(names * _FAINT)  # their own keys and values hardly count
        projection.x_attn.q_proj.weight.copy_(torch.eye(WIDTH) * _SHARP / _FAINT)

    def _seen(self, pixels: Tensor) -> Tensor:
        """What the projection reads: features of unit length, ``[batch, 1 + cells, width]``."""
        seen = self.model.vision_model(pixel_values=pixels)[0]
        return F.normalize(self.model.vision_model.model.post_layernorm(seen).float(), dim=-1)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Words and cells of all answers, and the grid."""
        rows = [chosen(scene, _EXERCISES, batch.rng) for scene in batch.scenes]
        seen = self._seen(batch.pixels)
        grid_loss, grid = self.module["head"](seen[:, 1:] * WIDTH**0.5, batch.shown)
        latents, _ = self.model.image_to_text_projection(seen[: len(rows)])
        logits, targets = self._answers(latents, [one for row in rows for one in row])
        loss, metrics = token_loss(logits, targets, self.places)
        return loss + 0.3 * grid_loss, {**metrics, "kind": grid.kind, "letter": grid.letter, "box": grid.box}

    def _answers(self, latents: Tensor, exercises: list[Exercise]) -> tuple[Tensor, Tensor]:
        """Logits and targets at every token of every answer. What stands before a prompt is read once an image."""
        text = self.model.text_model
        head = torch.tensor(self.head).expand(len(latents), -1)
        places = torch.zeros(head.shape, dtype=torch.bool)
        places[:, 2 : 2 + LATENTS] = True
        _, before = text.model(
            input_ids=head, image_embeds=latents, image_embeds_position_mask=places, use_cache=True, return_dict=False
        )
        kept = _cache_argument(text.model)
        rows, wanted = zip(*map(self._row, exercises), strict=True)
        hidden, targets = [], []
        for group in by_length(rows):
            images = [place * len(latents) // len(rows) for place in group]
            read = padded([rows[place] for place in group], _PAD)
            states = text.model(input_ids=read, use_cache=True, **{kept: _of(before, images)}).last_hidden_state
            said = padded([wanted[place] for place in group], IGNORED)
            hidden.append(states[said != IGNORED])
            targets.append(said[said != IGNORED])
        return text.lm_head(torch.cat(hidden)), torch.cat(targets)

    def _row(self, exercise: Exercise) -> tuple[list[int], list[int]]:
        """What is read, and what should be said after each token of it."""
        prompt, answer = self._ids(exercise.prompt), [*self._encode(exercise.answer), _EOS]
        return [*prompt, *answer[:-1]], [*[IGNORED] * (len(prompt) - 1), *answer]

    def _encode(self, text: str) -> list[int]:
        """As a prompt is read, but without the space that the tokenizer puts before a sign that follows a tag."""
        ids = self.vocabulary.encode_tagged(text)
        space = self.vocabulary.whole.token_to_id("▁")
        signs = {self.vocabulary.whole.token_to_id(sign) for sign in ".,"}
        return [one for one, after in zip(ids, (*ids[1:], None), strict=True) if one != space or after not in signs]

    def export(self, folder: Path) -> None:
        """Weights, configuration, tokenizer and processor."""
        write_tokenizer(folder)
        write_model(self.model, generation(), folder)


def _cache_argument(model: torch.nn.Module) -> str:
    """The name of ``forward``'s argument for earlier keys and values: transformers 5.24 renamed it."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def _of(cache: DynamicCache, images: list[int]) -> DynamicCache:
    """Keys and values of these images, in this order."""
    out = DynamicCache()
    for number, layer in enumerate(cache.layers):
        out.update(layer.keys[images], layer.values[images], number)
    return out


RECIPE = Recipe(
    "kosmos-2",
    TrainableKosmos2,
    SIDE,
    batch_size=24,
    pages=8,
    steps=14000,
    learning_rate=1.2e-3,
    pretrained_vision=True,
)
