"""What a model's training is made of: a lesson to learn, and how long and how fast.

The contract between the loop in :mod:`training.trainer` and the folders of the models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from training.data.batches import Batch, Batches
from training.data.normalisation import CLIP_MEAN, CLIP_STD, Channels
from training.vision.transfer import Sight
from vlm.checkpoint.weight_rules import NOTHING

Measures = Mapping[str, float]
_ENCODER = r"^(model\.vision(_model)?\.(?!projection)|head\.)"


class Lesson(Protocol):
    """A model under training, with all that serves its training only (the grid's head)."""

    @property
    def module(self) -> nn.Module:
        """Holds every trained parameter: the model's as ``model.*``."""

    @property
    def fingerprint(self) -> str:
        """Of the vocabulary: a state is of no use to a lesson whose ids mean other words."""

    def loss(self, batch: Batch) -> tuple[Tensor, Measures]:
        """What a step lowers, and numbers for people. Called under bf16 autocast."""

    def export(self, folder: Path) -> None:
        """Write the checkpoint in the layout of the hub, weights in fp16."""


@dataclass(frozen=True)
class Course:
    """How one model is trained.

    Attributes:
        name: Of the model, and of its folder under ``miniatures/``.
        begin: Makes the lesson from a fresh start; is given the batches for statistics of the images, and the vision
            encoder to begin with, if ``sighted``.
        side: Pixels a side of the images it reads.
        batch: Images of the world a step (see :class:`training.data.batches.Source` for which).
        steps: Until the scores of its card.
        rate: The learning rate once warm.
        shards: Files of images to choose from.
        pages: Pages of words a step, besides the batch.
        page_shards: Files of pages to choose from.
        sighted: Whether it begins with the vision encoder of :mod:`training.vision`, which is trained first.
    """

    name: str
    begin: Callable[[Batches, Sight | None], Lesson]
    side: int
    batch: int
    steps: int
    rate: float
    mean: Channels = CLIP_MEAN
    std: Channels = CLIP_STD
    shards: int = 14
    pages: int = 0
    page_shards: int = 2
    sighted: bool = False

    @property
    def slow(self) -> str:
        """Which parameters learn slowly: what can see already would forget at the rate of what can say nothing."""
        return _ENCODER if self.sighted else NOTHING
