"""Kosmos-2's recipe: several examples for each image, which share the keys and values of the image."""

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
from training.kosmos2.tasks import Example, sample_examples
from training.losses import IGNORED, Locations, by_length, padded, token_loss
from training.recipe import Metrics, Recipe
from training.vision.recipe import CELLS, SIDE, WIDTH
from training.vision.transfer import VisionWeights, copy_weights, to_clip
from vlm.checkpoint.files import Checkpoint
from vlm.models.kosmos2.vocabulary import CELLS as CELL_TOKENS
from vlm.models.kosmos2.vocabulary import GRID, Vocabulary

_BOS, _PAD, _EOS = 0, 1, 2
_EXAMPLES = 4
_CELL_STD = 0.7
"""Standard deviation, in cells, of the target distribution around a corner."""
_LATENT_SCALE, _SHARPNESS = 0.1, 12.0
"""Scale of the initial latent queries, and of their attention logits to their patches."""


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
        self.image_prompt = (_BOS, tags["<image>"], *range(_EOS + 2, _EOS + 2 + LATENTS), tags["</image>"])
        line = init.gaussian_targets(GRID, _CELL_STD)
        plane = torch.einsum("ab,cd->acbd", line, line).reshape(GRID**2, GRID**2)
        self.locations = Locations(tags[CELL_TOKENS[0]], plane, weight=1.0)
        self._initialise()
        head = GridHead(WIDTH, CELLS)
        if vision is not None:
            copy_weights(self.model.vision_model.model, to_clip(vision.encoder))
            copy_weights(head, vision.head)
        self._initialise_latents(batches.first_images(256))
        self.module = nn.ModuleDict({"model": self.model, "head": head})
        self._ids = lru_cache(maxsize=20_000)(self._encode)

    @torch.no_grad()
    def _initialise(self) -> None:
        model = self.model
        init.scale_layers(model, ("out_proj", "fc2"), skip=("lm_head",))
        table = model.get_input_embeddings().weight
        table.normal_(0, 0.05)
        table[self.locations.first : self.locations.first + GRID**2] = init.smooth_plane(GRID, table.shape[1])

    @torch.no_grad()
    def _initialise_latents(self, pixels: Tensor) -> None:
        """Make every latent query attend to one patch: keys are linear estimates of a patch's position.

        Random queries attend to each other, and locations stay imprecise for thousands of steps.
        """
        projection = self.model.image_to_text_projection
        projection.dense.weight.normal_(0, 1.0)  # its inputs have unit length
        projection.x_attn.out_proj.weight.mul_(0.5)
        patches = projection.dense(self._features(pixels)[:, 1:])
        positions = init.interleave_heads(init.grid_sinusoids(int(LATENTS**0.5), WIDTH), projection.x_attn.num_heads)
        weight, bias = init.ridge_regression(patches.flatten(0, 1), positions.repeat(len(patches), 1))
        projection.x_attn.k_proj.weight.copy_(weight)
        projection.x_attn.k_proj.bias.copy_(bias)
        projection.latent_query.copy_(positions * _LATENT_SCALE)  # small, for latents attend to each other as well
        projection.x_attn.q_proj.weight.copy_(torch.eye(WIDTH) * _SHARPNESS / _LATENT_SCALE)

    def _features(self, pixels: Tensor) -> Tensor:
        """The input of the projection: features of unit length, ``[batch, 1 + cells, width]``."""
        hidden = self.model.vision_model(pixel_values=pixels)[0]
        return F.normalize(self.model.vision_model.model.post_layernorm(hidden).float(), dim=-1)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Loss of the words and cells of all answers, and of the grid head."""
        examples = [sample_examples(scene, _EXAMPLES, batch.rng) for scene in batch.scenes]
        features = self._features(batch.pixels)
        grid_loss, grid = self.module["head"](features[:, 1:] * WIDTH**0.5, batch.all_scenes)
        latents, _ = self.model.image_to_text_projection(features[: len(examples)])
        logits, targets = self._answers(latents, [one for each in examples for one in each])
        loss, metrics = token_loss(logits, targets, self.locations)
        return loss + 0.3 * grid_loss, {**metrics, "kind": grid.kind, "letter": grid.letter, "box": grid.box}

    def _answers(self, latents: Tensor, examples: list[Example]) -> tuple[Tensor, Tensor]:
        """Logits ``[tokens, vocabulary]`` and targets ``[tokens]`` of all answers; each image is read once.

        ``latents``: ``[images, LATENTS, width]``.
        """
        text = self.model.text_model
        prompt = torch.tensor(self.image_prompt).expand(len(latents), -1)
        is_image = torch.zeros(prompt.shape, dtype=torch.bool)
        is_image[:, 2 : 2 + LATENTS] = True
        _, image_cache = text.model(
            input_ids=prompt,
            image_embeds=latents,
            image_embeds_position_mask=is_image,
            use_cache=True,
            return_dict=False,
        )
        argument = _cache_argument(text.model)
        rows, answers = zip(*map(self._row, examples), strict=True)
        hidden, targets = [], []
        for group in by_length(rows):
            images = [index * len(latents) // len(rows) for index in group]
            inputs = padded([rows[index] for index in group], _PAD)
            cache = {argument: _select(image_cache, images)}
            states = text.model(input_ids=inputs, use_cache=True, **cache).last_hidden_state
            expected = padded([answers[index] for index in group], IGNORED)
            hidden.append(states[expected != IGNORED])
            targets.append(expected[expected != IGNORED])
        return text.lm_head(torch.cat(hidden)), torch.cat(targets)

    def _row(self, example: Example) -> tuple[list[int], list[int]]:
        """The token ids to read, and the target after each of them."""
        prompt, answer = self._ids(example.prompt), [*self._encode(example.answer), _EOS]
        return [*prompt, *answer[:-1]], [*[IGNORED] * (len(prompt) - 1), *answer]

    def _encode(self, text: str) -> list[int]:
        """Encode as a prompt, without the space that the tokenizer puts before a punctuation mark after a tag."""
        ids = self.vocabulary.encode_tagged(text)
        space = self.vocabulary.whole.token_to_id("▁")
        signs = {self.vocabulary.whole.token_to_id(sign) for sign in ".,"}
        return [one for one, after in zip(ids, (*ids[1:], None), strict=True) if one != space or after not in signs]

    def export(self, folder: Path) -> None:
        """Write weights, configuration, tokenizer and image processor."""
        write_tokenizer(folder)
        write_model(self.model, generation(), folder)


def _cache_argument(model: torch.nn.Module) -> str:
    """The name of ``forward``'s argument for earlier keys and values: transformers 5.24 renamed it."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def _select(cache: DynamicCache, images: list[int]) -> DynamicCache:
    """The keys and values of these images, in this order."""
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
