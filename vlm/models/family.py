"""What a family's ``model.py`` offers as ``FAMILY``: what loading, drawing and verifying need, and the engine does not.

``vlm/loading.py`` makes a model of it, ``vlm/checkpoint/synthesis.py`` draws a folder, ``vlm/verify`` looks at one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch

from vlm.checkpoint.files import Checkpoint
from vlm.checkpoint.weight_rules import NOTHING, Parameters, Rule, Tensors, unchanged
from vlm.models.base import VisionLanguageModel
from vlm.models.checks import Finding
from vlm.models.processor import Processor


class ModelModule(VisionLanguageModel, Parameters, Protocol):
    """A model as its family makes it: a torch module, which ``vlm/loading.py`` fills."""

    def to(self, dtype: torch.dtype) -> Self:
        """nn.Module's."""
        ...

    def to_empty(self, *, device: torch.device) -> Self:
        """nn.Module's: memory for every parameter and buffer, without values."""
        ...

    def eval(self) -> Self:
        """nn.Module's."""
        ...

    def finish(self, checkpoint: Checkpoint) -> None:
        """Called once, when the parameters have their values.

        The place for what stands in the checkpoint's other files (defaults, ids), and for tables that are computed:
        whatever ``__init__`` put into buffers is lost, since it ran on the meta device.

        Raises:
            CheckpointError: A file is missing or does not fit.
        """
        ...


def no_checks(checkpoint: Checkpoint) -> Iterable[Finding]:  # noqa: ARG001  the hook's signature
    """For families whose files can hide no mistake that loading would not find."""
    return ()


@dataclass(frozen=True, slots=True)
class Family:
    """What a family's ``model.py`` offers as ``FAMILY``.

    Attributes:
        model_types: Values of ``model_type`` in config.json that it serves.
        model: Makes the model that the content of a config.json describes, without values; see :meth:`empty`.
        processor: Builds the processor.
        rules: Where each parameter lies in a checkpoint.
        write_files: Writes everything of a checkpoint folder but the weights, made up for a config.json.
        sizes: Configs to draw: "tiny", and "real" with the dimensions of the published checkpoint.
        ignored: Regular expression of tensor names that are known and not needed.
        native_tensors: Gives tensors the names (and forms) that ``rules`` speak of, where uploads differ.
        checks: What ``python -m vlm.verify`` shall look at beyond what loading does, such as a tokenizer that is
            readable but belongs to other weights. May raise CheckpointError.
    """

    model_types: tuple[str, ...]
    model: Callable[[Mapping[str, Any]], ModelModule]
    processor: Callable[[Checkpoint], Processor]
    rules: Sequence[Rule]
    write_files: Callable[[Path, Mapping[str, Any]], None]
    sizes: Mapping[str, Mapping[str, Any]]
    ignored: str = NOTHING
    native_tensors: Callable[[Tensors], Tensors] = unchanged
    checks: Callable[[Checkpoint], Iterable[Finding]] = no_checks

    def empty(self, config: Mapping[str, Any]) -> ModelModule:
        """The model of a config.json on the meta device: every shape, no memory. Raises CheckpointError."""
        with torch.device("meta"):
            return self.model(config)
