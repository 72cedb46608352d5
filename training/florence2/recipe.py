"""Florence-2's recipe: several examples for each image, which the vision tower encodes once."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BartTokenizer, Florence2ForConditionalGeneration

from training import init
from training.data.batches import Batch, Batches
from training.data.normalisation import IMAGENET_MEAN, IMAGENET_STD
from training.export import fingerprint, write_model
from training.florence2.files import SIDE, configuration, generation, grid_side, write_processor, write_tokenizer
from training.florence2.tasks import Example, sample_examples
from training.grid import GridHead
from training.losses import IGNORED, Locations, by_length, padded, token_loss
from training.recipe import Metrics, Recipe
from training.vision.transfer import VisionWeights
from vlm.models.florence2.vocabulary import BINS

_BOS, _PAD, _EOS = 0, 1, 2
_EXAMPLES = 3
_BIN_STD = 8.0
"""Standard deviation, in bins, of the target distribution around a location."""


class TrainableFlorence2:
    """Implements :class:`training.recipe.TrainableModel`."""

    def __init__(self, batches: Batches, vision: VisionWeights | None = None) -> None:  # noqa: ARG002 - part of the contract
        torch.manual_seed(0)
        with TemporaryDirectory() as folder:
            self.tokenizer: BartTokenizer = write_tokenizer(Path(folder))
            self.fingerprint = fingerprint(Path(folder) / "tokenizer.json")
        config = configuration(self.tokenizer)
        self.model: Any = Florence2ForConditionalGeneration._from_config(config, attn_implementation="eager")
        first = int(self.tokenizer.convert_tokens_to_ids("<loc_0>"))
        self.locations = Locations(first, init.gaussian_targets(BINS, _BIN_STD), weight=1.0)
        self._initialise(batches)
        self.module = nn.ModuleDict({"model": self.model, "head": GridHead(config.text_config.d_model, grid_side())})
        self._ids = lru_cache(maxsize=20_000)(self._encode)

    @torch.no_grad()
    def _initialise(self, batches: Batches) -> None:
        model = self.model
        init.scale_layers(model, ("proj", "fc2", "out_proj"), skip=("lm_head",))
        table = model.get_input_embeddings().weight
        table.normal_(0, 0.05)
        table[self.locations.first : self.locations.first + BINS] = init.smooth_line(BINS, table.shape[1])
        for name, value in model.named_parameters():
            if "embed_positions" in name:
                value.normal_(0, 0.05)
            if "image_position_embed" in name:
                value.copy_(init.sinusoids(torch.arange(len(value)), value.shape[1], 0.2, 2.5) * 0.7)
        first = model.model.vision_tower.convs[0].conv
        init.whiten(first.weight, batches.first_images(600), first.stride[0], gain=1.0)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Loss of the words and locations of all answers, and of the grid head."""
        examples = [one for scene in batch.scenes for one in sample_examples(scene, _EXAMPLES, batch.rng)]
        features = self.model.model.get_image_features(batch.pixels).pooler_output  # [batch, 1 + cells, width]
        grid_loss, grid = self.module["head"](features[:, 1:], batch.all_scenes)
        logits, targets = self._answers(features[: len(batch.scenes)].repeat_interleave(_EXAMPLES, 0), examples)
        loss, metrics = token_loss(logits, targets, self.locations)
        return loss + 0.4 * grid_loss, {**metrics, "kind": grid.kind, "letter": grid.letter, "box": grid.box}

    def _answers(self, features: Tensor, examples: list[Example]) -> tuple[Tensor, Tensor]:
        """Logits ``[tokens, vocabulary]`` and targets ``[tokens]`` of all answers.

        ``features``: ``[examples, 1 + cells, width]``.
        """
        language = self.model.model.language_model
        prompts = padded([[_BOS, *self._ids(one.prompt), _EOS] for one in examples], _PAD)
        answers = [[_BOS, *self._ids(one.answer), _EOS] for one in examples]
        words = self.model.get_input_embeddings()(prompts)
        ones = torch.ones(features.shape[:2], dtype=torch.long)
        mask = torch.cat([ones, (prompts != _PAD).long()], dim=1)
        encoded = language.encoder(inputs_embeds=torch.cat([features, words], dim=1), attention_mask=mask)
        hidden, targets = [], []
        for group in by_length(answers):
            expected = padded([answers[index] for index in group], IGNORED)
            states = self._decode(expected, encoded.last_hidden_state[group], mask[group])
            hidden.append(states[expected != IGNORED])
            targets.append(expected[expected != IGNORED])
        return self.model.lm_head(torch.cat(hidden)), torch.cat(targets)

    def _decode(self, expected: Tensor, encoded: Tensor, mask: Tensor) -> Tensor:
        """The hidden states that each expected token is predicted from."""
        before = torch.cat([torch.full((len(expected), 1), _EOS), expected[:, :-1]], dim=1)
        states: Tensor = self.model.model.language_model.decoder(
            input_ids=before.masked_fill(before == IGNORED, _PAD), encoder_hidden_states=encoded,
            encoder_attention_mask=mask, use_cache=False,
        ).last_hidden_state  # fmt: skip
        return states

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def export(self, folder: Path) -> None:
        """Write weights, configuration, tokenizer and image processor."""
        tokenizer = write_tokenizer(folder)
        write_processor(folder, tokenizer)
        write_model(self.model, generation(), folder)


RECIPE = Recipe(
    "florence-2-base",
    TrainableFlorence2,
    SIDE,
    batch_size=16,
    pages=4,
    steps=10600,
    learning_rate=1.5e-3,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
