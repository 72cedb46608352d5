"""Loads a checkpoint as a model that the engine can run: finds its family, builds model and processor.

Families are the folders of ``vlm.models``; each says in its ``model.py`` which ``model_type`` of config.json it serves.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlm import models
from vlm.calibration_files import CALIBRATIONS, find_calibration
from vlm.checkpoint.files import REVISION_MISSING, Checkpoint
from vlm.checkpoint.parameters import allocate_buffers, empty, place, shapes
from vlm.checkpoint.synthesis import write_weights
from vlm.checkpoint.unfit import MISSING_FILE
from vlm.checkpoint.weight_rules import load_weights
from vlm.checkpoint.weights_cache import MAX_BYTES, Layout, WeightsCache, identity
from vlm.errors import CheckpointError
from vlm.models.base import LoadedModel, VisionLanguageModel
from vlm.models.cards import cards, cards_of
from vlm.models.family import Family, ModelModule
from vlm.models.processor import Processor
from vlm.types import ModelInfo

log = logging.getLogger(__name__)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    source: str | Path | Checkpoint,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    report: Callable[[str], None] | None = None,
    weights_cache: str | Path | None = None,
    weights_cache_bytes: int = MAX_BYTES,
    admit: Callable[[VisionLanguageModel, int, torch.dtype], None] | None = None,
) -> LoadedModel:
    """Load a checkpoint.

    Args:
        source: A local folder, or a hub id, which needs a pinned ``revision``; or a checkpoint that is open already.
        dtype: "float32", "bfloat16", "float16", or "auto": bfloat16 on a GPU, float32 on CPU.
        device: "cpu", "cuda", "cuda:1", or "auto": a GPU where there is one.
        report: Gets a line every few seconds while loading, and one when the model is loaded. Not used for a
            checkpoint that is open already, which has a report of its own.
        weights_cache: A folder in which processes of this machine share the weights
            (:mod:`vlm.checkpoint.weights_cache`), or None for a copy of this process's own.
        weights_cache_bytes: Maximum size of that folder.
        admit: Called with the model without weights, its number of parameters and their dtype, before they take any
            memory; may raise to refuse it.

    Raises:
        CheckpointError: The checkpoint, dtype or device cannot be used; the message says why.
    """
    where = find_device(device)
    kind = _dtype(dtype, where)
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source, revision, report)
    name, family = find_family(checkpoint)
    began = time.perf_counter()
    cache = None if weights_cache is None else WeightsCache(Path(weights_cache).expanduser(), weights_cache_bytes)
    model = _load_model(family, checkpoint, kind, where, cache, admit=admit)
    processor = build_processor(name, family, checkpoint)
    calibration = find_calibration(checkpoint.folder, checkpoint.source, checkpoint.revision, _beside_card(name))
    loaded = LoadedModel(model, processor, name, checkpoint.source, checkpoint.revision, calibration)
    seconds = time.perf_counter() - began
    checkpoint.report(f"loaded {checkpoint.folder} ({name}) as {info(loaded).dtype} on {where} in {seconds:.1f} s")
    return loaded


def open_checkpoint(
    source: str | Path, revision: str | None = None, report: Callable[[str], None] | None = None
) -> Checkpoint:
    """As :meth:`Checkpoint.open`, but the error for a hub id without a revision names the one on the model's card."""
    try:
        return Checkpoint.open(source, revision, report)
    except CheckpointError as error:
        pinned = _pinned_revision(str(source)) if error.code == REVISION_MISSING else None
        if pinned is None:
            raise
        advice = f"This project is written for --revision {pinned}."
        raise CheckpointError(f"{error} {advice}", error.param, error.code) from error


def _pinned_revision(hub_id: str) -> str | None:
    """The first release on the card of a hub repository; None if there is no such card or no release."""
    of_repository = (card for card in cards().values() if card.hugging_face_id == hub_id)
    return next((release.revision for card in of_repository for release in card.releases), None)


def build_processor(name: str, family: Family, checkpoint: Checkpoint) -> Processor:
    """The family's processor for a checkpoint.

    Raises:
        CheckpointError: A file is missing or does not fit; for a missing one the message says where to copy it from.
    """
    try:
        return family.processor(checkpoint)
    except CheckpointError as error:
        origin = _origin(name, str(error.param)) if error.code == MISSING_FILE else None
        if origin is None:
            raise
        raise CheckpointError(
            f"{error.param} in {checkpoint.folder} is missing. A fine-tune can use that of its base model: "
            f"hf download {origin} --local-dir {checkpoint.folder}",
            error.param,
            error.code,
        ) from error


def _origin(family: str, name: str) -> str | None:
    """Arguments of ``hf download`` for the file ``name`` of the family's published model; None without a card."""
    card = next((card for card in cards_of(family) if card.hugging_face_id), None)
    if card is None:
        return None
    for release in card.releases:
        for file in release.files:
            if file.name == name and file.source:
                repository, _, revision = file.source.partition(" at ")
                return f"{repository} {name} --revision {revision}"
    pinned = f" --revision {card.releases[0].revision}" if card.releases else ""
    return f"{card.hugging_face_id} {name}{pinned}"


def info(loaded: LoadedModel) -> ModelInfo:
    """What a loaded model is: its family, where it came from, its size, and how it runs."""
    model = loaded.model
    return ModelInfo(
        family=loaded.family,
        checkpoint=loaded.source,
        revision=loaded.revision,
        parameters=sum(parameter.numel() for parameter in _module(model).parameters()),
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        calibrated=loaded.calibration.summary,
    )


def _beside_card(family: str) -> Path:
    """The folder with what was measured of the family's published weights, which their own folder does not hold."""
    return Path(next(iter(models.__path__))) / family / CALIBRATIONS


def _load_model(
    family: Family,
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device,
    cache: WeightsCache | None,
    *,
    admit: Callable[[VisionLanguageModel, int, torch.dtype], None] | None,
) -> VisionLanguageModel:
    """The family's model with the checkpoint's weights: in memory of its own, or mapped where the cache can be used."""
    _set_up(device)
    model = family.empty(checkpoint.config)
    module = _module(model)
    sizes = shapes(module)
    if admit is not None:
        admit(model, sum(size.numel() for size in sizes.values()), dtype)

    def fill(tensors: Mapping[str, Tensor]) -> None:
        place(module, tensors)
        load_weights(model, family.native_tensors(checkpoint.tensors()), family.rules, family.ignored)

    shared = None if cache is None else cache.parameters(_layout(family, checkpoint, sizes, dtype), fill)
    if shared is None:
        fill(empty(sizes, dtype, device))
    else:
        place(module, {key: tensor.to(device) for key, tensor in shared.items()})
    allocate_buffers(module, dtype, device)
    model.finish(checkpoint)
    return model.eval()


def allocate(family: Family, config: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> ModelModule:
    """The family's model without values; memory is allocated once, on the device itself."""
    _set_up(device)
    model = family.empty(config)
    module = _module(model)
    place(module, empty(shapes(module), dtype, device))
    allocate_buffers(module, dtype, device)
    return model


def _set_up(device: torch.device) -> None:
    if device.type == "cuda":
        # cuDNN plans its attention for each shape that it has not seen, which can take a second, and nearly every
        # decode step has a new shape: rows come and go, and tables grow. The other kernels need no plan.
        torch.backends.cuda.enable_cudnn_sdp(False)


def _layout(family: Family, checkpoint: Checkpoint, sizes: Mapping[str, torch.Size], dtype: torch.dtype) -> Layout:
    """How the weights lie in the cache; another checkpoint, or other code that converts it, has another file."""
    code = [_code_of(family.native_tensors), _code_of(load_weights)]
    key = repr((identity(checkpoint), tuple(family.rules), family.ignored, code))
    return Layout(checkpoint.model_type, key, sizes, dtype)


def _code_of(function: Callable[..., object]) -> str:
    """A hash of the file in which the function is."""
    return hashlib.sha256(Path(inspect.getfile(inspect.unwrap(function))).read_bytes()).hexdigest()


def _module(model: VisionLanguageModel) -> nn.Module:
    assert isinstance(model, nn.Module)  # the engine's contract does not say so, but every family's model is one
    return model


def families() -> Iterator[tuple[str, Family]]:
    """Every family that can be imported, with its folder's name; the log names the folders that are left out."""
    for name in _folders():
        family = _imported(name)
        if isinstance(family, Family):
            yield name, family
        else:
            log.warning("The model family %s is left out: %s", _path(name), _reason(family))


def find_family(checkpoint: Checkpoint) -> tuple[str, Family]:
    """The family that serves the checkpoint's ``model_type``, with its folder's name.

    Raises:
        CheckpointError: No family serves it; the message also names families that could not be imported.
    """
    found: dict[str, Family | Exception] = {}
    for name in _likeliest_first(_folders(), checkpoint.model_type):
        family = found[name] = _imported(name)
        if isinstance(family, Family) and checkpoint.model_type in family.model_types:
            return name, family
    known = {name: family for name, family in found.items() if isinstance(family, Family)}
    served = ", ".join(sorted(kind for family in known.values() for kind in family.model_types))
    broken = {name: error for name, error in found.items() if isinstance(error, Exception)}
    raise CheckpointError(
        f"{checkpoint.folder}/config.json has model_type {checkpoint.model_type!r}; this project serves {served}."
        + "".join(f" {_path(name)} could not be imported: {_reason(error)}" for name, error in broken.items())
    ) from next(iter(broken.values()), None)


def _likeliest_first(names: Iterable[str], model_type: str) -> list[str]:
    """In the order in which to import families, until one serves the model: those named as it is come first."""
    return sorted(names, key=lambda name: _common_beginning(name, model_type), reverse=True)


def _common_beginning(one: str, other: str) -> int:
    """Number of characters with which both begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _folders() -> Iterator[str]:
    """Names of the folders of ``vlm.models`` that are families; the log names those that lack a file."""
    found = (path for root in models.__path__ for path in Path(root).iterdir() if path.is_dir())
    for folder in sorted(path for path in found if any(path.glob("*.py"))):
        missing = [name for name in ("__init__.py", "model.py") if not (folder / name).exists()]
        if missing:
            log.warning("%s is not a model family yet: it has no %s", _path(folder.name), " and no ".join(missing))
        else:
            yield folder.name


def _imported(name: str) -> Family | Exception:
    """The family of that folder, or the error why it cannot be used, which must not prevent the use of others."""
    try:
        family = importlib.import_module(f"{models.__name__}.{name}.model").FAMILY
    except Exception as error:  # noqa: BLE001  the code of a family may raise anything while it is imported
        return error
    return family if isinstance(family, Family) else TypeError(f"FAMILY is a {type(family).__name__}, not a Family")


def _path(name: str) -> str:
    return f"{models.__name__}.{name}".replace(".", "/")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def find_device(name: str) -> torch.device:
    """The device of that name; for "auto" a GPU if there is one. Raises CheckpointError if there is no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CheckpointError(f"{name!r} is not a valid device; use cpu, cuda or auto.", param="device") from error
    if device.type not in {"cpu", "cuda"}:
        raise CheckpointError(f"The device {name!r} is not supported; use cpu, cuda or auto.", param="device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CheckpointError(f"There is no device {name!r} here; use cpu or auto.", param="device")
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _DTYPES:
        raise CheckpointError(f"{name!r} is not a valid dtype; use {', '.join(_DTYPES)} or auto.", param="dtype")
    return _DTYPES[name]


def synthesize(family: Family, folder: Path, config: Mapping[str, Any], seed: int) -> None:
    """Write a checkpoint folder in the hub's layout, with random weights of the sizes in ``config`` (a config.json)."""
    family.write_files(folder, config)
    write_weights(folder, family.empty(config), family.rules, seed)
