"""How one model is trained: its modules and losses, the number of steps, the learning rate and the data.

The contract between the loop in :mod:`training.trainer` and the package of each model, whose ``RECIPE`` it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from training.data.batches import Batch, Batches
from training.data.normalisation import CLIP_MEAN, CLIP_STD, Channels
from training.vision.transfer import VisionWeights
from vlm.checkpoint.weight_rules import NOTHING

Metrics = Mapping[str, float]
_VISION_ENCODER = r"^(model\.vision(_model)?\.(?!projection)|head\.)"


class TrainableModel(Protocol):
    """A model, its training loss, and the modules that only training needs (the grid head)."""

    @property
    def module(self) -> nn.Module:
        """Holds every trained parameter; those of the model are named ``model.*``."""

    @property
    def fingerprint(self) -> str:
        """Identifies the vocabulary: a training state cannot be resumed with token ids that mean something else."""

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """The loss of a step, and metrics for the log. Called under bf16 autocast."""

    def export(self, folder: Path) -> None:
        """Write the checkpoint in the layout of the Hugging Face hub, with weights in fp16."""


@dataclass(frozen=True)
class Recipe:
    """How one model is trained.

    Attributes:
        name: Of the model, and of its folder under ``miniatures/``.
        build: Makes the model with initial weights. It receives the batches, for statistics of the images, and the
            weights of the vision encoder if ``pretrained_vision``.
        side: Width and height in pixels of the images that the model reads.
        batch_size: Images of scenes per step (see :class:`training.data.batches.Source` for how they are chosen).
        steps: Number of steps that the scores of the model card were reached with.
        learning_rate: After the warm-up and before the decay.
        mean, std: The model's normalisation of pixels, per channel.
        shards: Files of images to choose from.
        pages: Images of pages of words per step, in addition to ``batch_size``.
        page_shards: Files of pages to choose from.
        stacks: Images of stacked shapes per step, in addition to ``batch_size``.
        stack_shards: Files of stacks to choose from.
        pretrained_vision: Whether training starts from the vision encoder of :mod:`training.vision`.
        seed: Text from which all random choices of the data follow; the name if empty.
    """

    name: str
    build: Callable[[Batches, VisionWeights | None], TrainableModel]
    side: int
    batch_size: int
    steps: int
    learning_rate: float
    mean: Channels = CLIP_MEAN
    std: Channels = CLIP_STD
    shards: int = 14
    pages: int = 0
    page_shards: int = 2
    stacks: int = 0
    stack_shards: int = 2
    pretrained_vision: bool = False
    seed: str = ""

    @property
    def slow_parameters(self) -> str:
        """Regular expression of the parameters with a lower learning rate: a pretrained encoder forgets at the full."""
        return _VISION_ENCODER if self.pretrained_vision else NOTHING
