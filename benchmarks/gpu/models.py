"""Models to measure: bundled miniatures, and models of the published size whose weights are made up on the device."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from vlm.checkpoint.files import Checkpoint
from vlm.loading import allocate, families
from vlm.models.base import LoadedModel

MINIATURES = Path(__file__).resolve().parents[2] / "miniatures"
FOLDERS = {"blip": "blip-large", "florence2": "florence-2-base", "kosmos2": "kosmos-2", "moondream2": "moondream-2"}
"""The miniature of each family, by the family's name."""


def synthesised(family: str, size: str, dtype: torch.dtype, device: torch.device) -> LoadedModel:
    """A model of one of the family's sizes. Writing gigabytes of weights to a disk first would take minutes."""
    found = dict(families())[family]
    config = found.sizes[size]
    with TemporaryDirectory(prefix="gpu-bench-") as folder:
        found.write_files(Path(folder), config)
        checkpoint = Checkpoint.open(folder)
        model = allocate(found, config, dtype, device)
        assert isinstance(model, nn.Module)
        _fill(model, device)
        model.finish(checkpoint)
        processor = found.processor(checkpoint)
    return LoadedModel(model.eval(), processor, family, f"{family}, {size} size", None)


@torch.no_grad()
def _fill(model: nn.Module, device: torch.device) -> None:
    """Norms are one, biases zero, and matrices keep the size of what goes through them, as in a trained model."""
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        else:
            depthwise = parameter.ndim == 4 and parameter.shape[1] == 1  # added to its input dozens of times over
            std = parameter.shape[1:].numel() ** -0.5 * (0.1 if depthwise else 1.0)
            parameter.normal_(0, std, generator=generator)


def never_ending(loaded: LoadedModel) -> LoadedModel:
    """The same model without an end-of-sequence token, so that every answer has the length that is asked for."""
    loaded.model.eos_token_ids = frozenset({-1})
    return loaded
