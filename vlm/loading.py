"""A checkpoint to a model that the engine can run: finds the family, picks dtype and device, builds both halves.

Families are the folders of ``vlm.models``; each says in its ``model.py`` which ``model_type`` of config.json it serves.
"""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlm import models
from vlm.checkpoint.files import Checkpoint
from vlm.checkpoint.synthesis import write_weights
from vlm.checkpoint.weight_rules import load_weights
from vlm.errors import CheckpointError
from vlm.models.base import LoadedModel, VisionLanguageModel
from vlm.models.family import Family
from vlm.types import ModelInfo

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    source: str | Path | Checkpoint,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    report: Callable[[str], None] | None = None,
) -> LoadedModel:
    """Load a checkpoint.

    Args:
        source: A local folder, or a hub id, which needs a pinned ``revision``; or a checkpoint that is open already.
        dtype: "float32", "bfloat16", "float16", or "auto": bfloat16 on a GPU, float32 on CPU.
        device: "cpu", "cuda", "cuda:1", or "auto": a GPU where there is one.
        report: Is told in a few lines how loading goes on; an open checkpoint has its own.

    Raises:
        CheckpointError: The checkpoint, dtype or device cannot be used; the message says why.
    """
    where = find_device(device)
    kind = _dtype(dtype, where)
    checkpoint = source if isinstance(source, Checkpoint) else Checkpoint.open(source, revision, report)
    name, family = find_family(checkpoint)
    tell = checkpoint.report
    tell(f"loading {checkpoint.folder} ({name}) as {str(kind).removeprefix('torch.')} on {where}")
    began = time.perf_counter()
    model = _filled(family, checkpoint, kind, where)
    loaded = LoadedModel(model, family.processor(checkpoint), name, checkpoint.source, checkpoint.revision)
    tell(f"loaded in {time.perf_counter() - began:.1f} s")
    return loaded


def info(loaded: LoadedModel) -> ModelInfo:
    """What a loaded model is: its family, where it came from, its size, and how it runs."""
    model = loaded.model
    assert isinstance(model, nn.Module)  # the engine's contract does not say so, but every family's model is one
    return ModelInfo(
        family=loaded.family,
        checkpoint=loaded.source,
        revision=loaded.revision,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
    )


def _filled(family: Family, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> VisionLanguageModel:
    """The family's model with the checkpoint's weights; memory is taken once, on the device itself."""
    model = family.empty(checkpoint.config).to(dtype).to_empty(device=device)
    load_weights(model, family.native_tensors(checkpoint.tensors()), family.rules, family.ignored)
    model.finish(checkpoint)
    return model.eval()


def families() -> Iterator[tuple[str, Family]]:
    """Every family by its folder's name."""
    for module in pkgutil.iter_modules(models.__path__):
        if module.ispkg:
            family = importlib.import_module(f"{models.__name__}.{module.name}.model").FAMILY
            assert isinstance(family, Family)
            yield module.name, family


def find_family(checkpoint: Checkpoint) -> tuple[str, Family]:
    """The family that serves the checkpoint's ``model_type``, with its folder's name."""
    known = dict(families())
    for name, family in known.items():
        if checkpoint.model_type in family.model_types:
            return name, family
    served = ", ".join(sorted(kind for family in known.values() for kind in family.model_types))
    raise CheckpointError(
        f"{checkpoint.folder}/config.json has model_type {checkpoint.model_type!r}; this project serves {served}."
    )


def find_device(name: str) -> torch.device:
    """The device of that name, or for "auto" a GPU where there is one. Raises CheckpointError for what is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CheckpointError(f"{name!r} is no device; use cpu, cuda or auto.", param="device") from error
    if device.type not in {"cpu", "cuda"}:
        raise CheckpointError(f"The device {name!r} is not supported; use cpu, cuda or auto.", param="device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CheckpointError(f"There is no device {name!r} here; use cpu or auto.", param="device")
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _DTYPES:
        raise CheckpointError(f"{name!r} is no dtype; use {', '.join(_DTYPES)} or auto.", param="dtype")
    return _DTYPES[name]


def synthesize(family: Family, folder: Path, config: Mapping[str, Any], seed: int) -> None:
    """Write a folder as the hub has it, of the sizes in ``config`` (a config.json), with weights drawn by ``seed``."""
    family.write_files(folder, config)
    write_weights(folder, family.empty(config), family.rules, seed)
