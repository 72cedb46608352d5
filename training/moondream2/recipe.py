"""Moondream 2's recipe: our own modules, several examples for each image, words and locations by separate heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from training import init
from training.data.batches import Batch, Batches
from training.data.normalisation import HALF
from training.export import fingerprint
from training.grid import GridHead
from training.losses import IGNORED, by_length, padded, share
from training.moondream2.context import Continuation, Prefix
from training.moondream2.files import BINS, write_files
from training.moondream2.tasks import Example, ExampleEncoder
from training.recipe import Metrics, Recipe
from training.vision.recipe import CELLS, SIDE, WIDTH
from training.vision.transfer import VisionWeights, copy_weights, to_moondream
from vlm.checkpoint.files import Checkpoint
from vlm.checkpoint.weight_rules import sources
from vlm.models.moondream2.model import Moondream2
from vlm.models.moondream2.vocabulary import Vocabulary
from vlm.models.moondream2.weights import RULES

_EXAMPLES = 4
_BIN_STD = 1.2
"""Standard deviation, in bins, of the target distribution around a coordinate or a size."""
_LOCATION_WEIGHT = 0.5
"""Weight of a location's loss; that of a word is 1."""


@dataclass(frozen=True)
class Targets:
    """Each head's target for every id of the answers, ``[tokens]``; ``IGNORED`` if the head does not predict it."""

    words: Tensor
    coordinates: Tensor
    widths: Tensor
    heights: Tensor


class TrainableMoondream2:
    """Implements :class:`training.recipe.TrainableModel`."""

    def __init__(self, batches: Batches, vision: VisionWeights | None) -> None:  # noqa: ARG002 - part of the contract
        torch.manual_seed(0)
        with TemporaryDirectory() as folder:
            self.model = Moondream2(write_files(Path(folder)))
            self.fingerprint = fingerprint(Path(folder) / "tokenizer.json")
            vocabulary = Vocabulary.from_checkpoint(Checkpoint.open(folder), self.model.ids)
        self.encoder = ExampleEncoder(self.model.ids, self.model.locations, vocabulary)
        self.soft_targets = init.gaussian_targets(BINS, _BIN_STD)
        self._initialise()
        head = GridHead(WIDTH, CELLS)
        if vision is not None:
            copy_weights(self.model.vision, to_moondream(vision.encoder))
            copy_weights(head, vision.head)
        self.module = nn.ModuleDict({"model": self.model, "head": head})

    @torch.no_grad()
    def _initialise(self) -> None:
        """Set every parameter: our modules allocate them without initial values."""
        for name, value in self.model.named_parameters():
            if value.ndim == 1:
                value.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        init.scale_layers(self.model, ("out", "down"))
        self.model.text.tokens.normal_(0, 0.3)
        self.model.text.head.weight.normal_(0, 0.05)
        self.model.vision.positions.normal_(0, 0.02)
        self.model.region.coordinate_features.normal_(0, 2.0)
        self.model.region.size_features.normal_(0, 1.5)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Loss of the words and locations of all answers, and of the grid head."""
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernel's backward pass is very slow in bf16 on CPUs
            encoded = self.model.vision.encode(batch.pixels)
            grid_loss, grid = self.module["head"](encoded, batch.all_scenes)
            examples = self._sample(batch)
            described = encoded[: len(batch.scenes)]
            features = self.model.vision.projection(torch.cat([described, described], dim=-1))  # no tiles
            hidden, answers = self._answers(features, examples)
        loss, metrics = self._head_losses(hidden, self._targets(answers))
        return loss + 0.3 * grid_loss, {**metrics, "kind": grid.kind, "letter": grid.letter, "box": grid.box}

    def _sample(self, batch: Batch) -> list[Example]:
        """The same number of examples for each scene, in the order of the scenes."""
        per_scene = (self.encoder.sample_examples(scene, _EXAMPLES, batch.rng) for scene in batch.scenes)
        return [one for examples in per_scene for one in examples]

    def _answers(self, features: Tensor, examples: list[Example]) -> tuple[Tensor, Tensor]:
        """The hidden states ``[tokens, width]`` that the ids of the answers are predicted from, and these ids.

        ``features``: ``[images, positions, width]``.
        """
        transformer = self.model.text.transformer
        prefix_embeddings = self.model.embed_prefix(features.unbind())
        prefix = Prefix(prefix_embeddings.shape[1])
        transformer(prefix_embeddings, prefix)
        rows = [[*one.prompt, *one.answer[:-1]] for one in examples]
        hidden, answers = [], []
        for group in by_length(rows):
            images = [index * len(features) // len(rows) for index in group]
            inputs = padded([rows[index] for index in group], self.model.ids.eos)
            states = transformer(self.model.embed_tokens(inputs), Continuation(prefix, images, inputs.shape[1]))
            expected = padded([_expected(examples[index]) for index in group], IGNORED)
            hidden.append(states[expected != IGNORED])
            answers.append(expected[expected != IGNORED])
        return torch.cat(hidden), torch.cat(answers)

    def _targets(self, answers: Tensor) -> Targets:
        """The targets of all heads. A coordinate is also the word ``coordinate``: the word head chooses to continue."""
        locations = self.model.locations
        is_size = answers >= locations.sizes
        is_coordinate = (answers >= locations.vocabulary) & ~is_size
        nothing = torch.full_like(answers, IGNORED)
        pairs = answers - locations.sizes
        return Targets(
            words=torch.where(is_coordinate, self.model.ids.coordinate, torch.where(is_size, nothing, answers)),
            coordinates=torch.where(is_coordinate, answers - locations.vocabulary, nothing),
            widths=torch.where(is_size, pairs // BINS, nothing),
            heights=torch.where(is_size, pairs % BINS, nothing),
        )

    def _head_losses(self, hidden: Tensor, targets: Targets) -> tuple[Tensor, Metrics]:
        """The mean loss of words and, by their weight, of locations."""
        is_word, is_coordinate, is_size = (
            one != IGNORED for one in (targets.words, targets.coordinates, targets.widths)
        )
        words = self.model.logits(hidden[is_word]).float()
        coordinates = self.model.region.coordinate_logits(hidden[is_coordinate])
        sizes = self.model.region.size_logits(hidden[is_size])
        locations = [
            self._bin_losses(coordinates, targets.coordinates[is_coordinate]),
            self._bin_losses(sizes[:, 0], targets.widths[is_size]),
            self._bin_losses(sizes[:, 1], targets.heights[is_size]),
        ]
        total = len(words) + _LOCATION_WEIGHT * sum(len(losses) for losses, _ in locations)
        word_loss = F.cross_entropy(words, targets.words[is_word], reduction="sum")
        loss = word_loss + _LOCATION_WEIGHT * sum(losses.sum() for losses, _ in locations)
        close = torch.cat([one for _, one in locations])
        metrics = {"words": share(words.argmax(-1) == targets.words[is_word]), "locations": share(close)}
        return loss / total, metrics

    def _bin_losses(self, logits: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
        """The losses, and whether the most probable bin is within two standard deviations of the right one."""
        logs = F.log_softmax(logits.float(), dim=-1)
        close = (logs.argmax(-1) - bins).abs() <= 2 * _BIN_STD
        return -(self.soft_targets[bins] * logs).sum(-1), close

    def export(self, folder: Path) -> None:
        """Write the weights under their published names, config.json and the tokenizer."""
        write_files(folder)
        save_file(published(self.model), folder / "model.safetensors", metadata={"format": "pt"})


def _expected(example: Example) -> list[int]:
    """The target after each id that is read."""
    return [*[IGNORED] * (len(example.prompt) - 1), *example.answer]


def published(model: Moondream2) -> Mapping[str, Tensor]:
    """The weights in fp16 under their published names."""
    return {
        name: value.detach().half().contiguous()
        for ours, value in model.named_parameters()
        for name, source in sources(ours, RULES)
        if not source.is_alias
    }


RECIPE = Recipe(
    "moondream-2",
    TrainableMoondream2,
    SIDE,
    batch_size=20,
    stacks=5,
    pages=8,
    steps=10500,
    learning_rate=1.2e-3,
    mean=HALF,
    std=HALF,
    pretrained_vision=True,
)
