"""Moondream 2's trainable: our own modules, several exercises on each image, words and places by their own heads."""

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
from training.moondream2.context import Following, Prefix
from training.moondream2.files import BINS, write_files
from training.moondream2.tasks import Exercise, Writer
from training.recipe import Metrics, Recipe
from training.vision.recipe import CELLS, SIDE, WIDTH
from training.vision.transfer import VisionWeights, copy_weights, to_moondream
from vlm.checkpoint.files import Checkpoint
from vlm.checkpoint.weight_rules import sources
from vlm.models.moondream2.model import Moondream2
from vlm.models.moondream2.vocabulary import Vocabulary
from vlm.models.moondream2.weights import RULES

_EXERCISES = 4
_REACH = 1.2
"""Standard deviation, in bins, of the bell around a coordinate or a length."""
_PLACED = 0.5
"""Weight of a place's loss, where a word's is 1."""


@dataclass(frozen=True)
class Targets:
    """What each written id is to each head, ``[tokens]``; ``IGNORED`` where a head has no say."""

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
        self.writer = Writer(self.model.ids, self.model.places, vocabulary)
        self.bells = init.neighbours(BINS, _REACH)
        self._begin()
        head = GridHead(WIDTH, CELLS)
        if vision is not None:
            copy_weights(self.model.vision, to_moondream(vision.encoder))
            copy_weights(head, vision.head)
        self.module = nn.ModuleDict({"model": self.model, "head": head})

    @torch.no_grad()
    def _begin(self) -> None:
        """Nothing of the modules is filled in by itself."""
        for name, value in self.model.named_parameters():
            if value.ndim == 1:
                value.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        init.spread(self.model, ("out", "down"))
        self.model.text.tokens.normal_(0, 0.3)
        self.model.text.head.weight.normal_(0, 0.05)
        self.model.vision.positions.normal_(0, 0.02)
        self.model.region.coordinate_features.normal_(0, 2.0)
        self.model.region.size_features.normal_(0, 1.5)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Words and places of all answers, and the grid."""
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernel's backward is slower than the whole rest in bf16 on CPUs
            seen = self.model.vision.encode(batch.pixels)
            grid_loss, grid = self.module["head"](seen, batch.shown)
            exercises = [one for scene in batch.scenes for one in self.writer.chosen(scene, _EXERCISES, batch.rng)]
            told = seen[: len(batch.scenes)]
            hidden, written = self._read(self.model.vision.projection(torch.cat([told, told], dim=-1)), exercises)
        loss, metrics = self._heads(hidden, self._targets(written))
        return loss + 0.3 * grid_loss, {**metrics, "kind": grid.kind, "letter": grid.letter, "box": grid.box}

    def _read(self, features: Tensor, exercises: list[Exercise]) -> tuple[Tensor, Tensor]:
        """Hidden states before each written id ``[tokens, width]``, and these ids."""
        transformer = self.model.text.transformer
        before = self.model.embed_prefix(features.unbind())
        prefix = Prefix(before.shape[1])
        transformer(before, prefix)
        rows = [[*one.prompt, *one.written[:-1]] for one in exercises]
        hidden, written = [], []
        for group in by_length(rows):
            images = [place * len(features) // len(rows) for place in group]
            read = padded([rows[place] for place in group], self.model.ids.eos)
            states = transformer(self.model.embed_tokens(read), Following(prefix, images, read.shape[1]))
            wanted = padded([_wanted(exercises[place]) for place in group], IGNORED)
            hidden.append(states[wanted != IGNORED])
            written.append(wanted[wanted != IGNORED])
        return torch.cat(hidden), torch.cat(written)

    def _targets(self, written: Tensor) -> Targets:
        """A coordinate is also a word, its mark: where the step before an x chooses one, that is "a further object"."""
        places = self.model.places
        is_size = written >= places.sizes
        is_place = (written >= places.words) & ~is_size
        nothing = torch.full_like(written, IGNORED)
        pairs = written - places.sizes
        return Targets(
            words=torch.where(is_place, self.model.ids.coordinate, torch.where(is_size, nothing, written)),
            coordinates=torch.where(is_place, written - places.words, nothing),
            widths=torch.where(is_size, pairs // BINS, nothing),
            heights=torch.where(is_size, pairs % BINS, nothing),
        )

    def _heads(self, hidden: Tensor, targets: Targets) -> tuple[Tensor, Metrics]:
        said, placed, sized = (one != IGNORED for one in (targets.words, targets.coordinates, targets.widths))
        words = self.model.logits(hidden[said]).float()
        coordinates = self.model.region.coordinate_logits(hidden[placed])
        lengths = self.model.region.size_logits(hidden[sized])
        bells = [
            self._bell(coordinates, targets.coordinates[placed]),
            self._bell(lengths[:, 0], targets.widths[sized]),
            self._bell(lengths[:, 1], targets.heights[sized]),
        ]
        total = len(words) + _PLACED * sum(len(one) for one, _ in bells)
        loss = F.cross_entropy(words, targets.words[said], reduction="sum") + _PLACED * sum(
            one.sum() for one, _ in bells
        )
        near = torch.cat([one for _, one in bells])
        metrics = {"words": share(words.argmax(-1) == targets.words[said]), "places": share(near)}
        return loss / total, metrics

    def _bell(self, logits: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
        """Losses, and whether the likeliest bin is within two bells."""
        logs = F.log_softmax(logits.float(), dim=-1)
        near = (logs.argmax(-1) - bins).abs() <= 2 * _REACH
        return -(self.bells[bins] * logs).sum(-1), near

    def export(self, folder: Path) -> None:
        """Weights by their published names, config.json and the tokenizer."""
        write_files(folder)
        save_file(published(self.model), folder / "model.safetensors", metadata={"format": "pt"})


def _wanted(exercise: Exercise) -> list[int]:
    """What is to be written after each id that is read."""
    return [*[IGNORED] * (len(exercise.prompt) - 1), *exercise.written]


def published(model: Moondream2) -> Mapping[str, Tensor]:
    """The weights in fp16 by the names of the hub."""
    return {
        name: value.detach().half().contiguous()
        for ours, value in model.named_parameters()
        for name, place in sources(ours, RULES)
        if not place.is_alias
    }


RECIPE = Recipe(
    "moondream-2",
    TrainableMoondream2,
    SIDE,
    batch_size=24,
    pages=8,
    steps=10500,
    learning_rate=1.2e-3,
    mean=HALF,
    std=HALF,
    pretrained_vision=True,
)
