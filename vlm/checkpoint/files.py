"""Opens a checkpoint: a local folder, or a hub repository at a pinned revision.

The model families know what a key or a tensor means. Never unpickles, and never runs code from a checkpoint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm.checkpoint.hub import HubFile, Report, download, download_file
from vlm.checkpoint.progress import Progress
from vlm.checkpoint.unfit import missing, refuse_adapter, refuse_quantised, unreadable, unusable
from vlm.errors import CheckpointError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

REVISION_MISSING = "revision_missing"
"""The code of the error for a hub id without a full commit id."""

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_CONVERT = (
    'Convert it once, where you trust the file: python -c "import torch; from safetensors.torch import save_file; '
    "weights = torch.load('pytorch_model.bin', weights_only=True, map_location='cpu'); "
    "save_file({name: tensor.clone().contiguous() for name, tensor in weights.items()}, 'model.safetensors')\""
)


def _silent(line: str) -> None:
    """The default report, which drops every line."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with a ``config.json``, and where it came from.

    Attributes:
        folder: Where the files are on this machine.
        source: The path or hub id that was opened.
        revision: The hub revision, or None for a local folder.
        config: The content of ``config.json``.
        report: Gets one line about each slow step.
    """

    folder: Path
    source: str
    revision: str | None
    config: Mapping[str, Any]
    report: Report = field(default=_silent, repr=False, compare=False)

    @classmethod
    def open(cls, source: str | Path, revision: str | None = None, report: Report | None = None) -> Checkpoint:
        """Find the folder (fetching it if ``source`` is a hub id) and read its ``config.json``.

        Args:
            source: A folder, or, with a ``revision``, a hub id ``organisation/name``.
            revision: Full commit id; required for a hub id, and an error where there is a folder of that name.
            report: Gets one line about each slow step.

        Raises:
            CheckpointError: No such folder or repository, no revision (code ``revision_missing``), a revision of a
                folder, an adapter without its base model, or no usable ``config.json``.
        """
        folder = _find(source, revision, report or _silent)
        refuse_adapter(folder)
        return cls(folder, str(source), revision, _require(folder, "config.json"), report or _silent)

    @property
    def model_type(self) -> str:
        """The family's name as the config has it (``"blip"``).

        Raises:
            CheckpointError: The config does not name it.
        """
        value = self.config.get("model_type")
        if not isinstance(value, str):
            raise CheckpointError(
                f"config.json in {self.folder} has no text under 'model_type'; use a complete folder."
            )
        return value

    @property
    def generation(self) -> Mapping[str, Any]:
        """The content of ``generation_config.json``; empty without one."""
        return self.json("generation_config.json") or {}

    def json(self, name: str) -> dict[str, Any] | None:
        """The object in the JSON file ``name``, or None if there is no such file.

        Raises:
            CheckpointError: The file is there, but does not hold a JSON object.
        """
        path = self.folder / name
        return _read_object(path) if path.is_file() else None

    def require_json(self, name: str) -> dict[str, Any]:
        """As :meth:`json`, but a missing file is an error too."""
        return _require(self.folder, name)

    def tokenizer(self, kept: HubFile | None = None) -> Tokenizer:
        """A new tokenizer from ``tokenizer.json``, without truncation or padding.

        Args:
            kept: The file to fetch instead, if the tokenizer is in another repository of the hub.

        Raises:
            CheckpointError: The file is missing or not usable.
        """
        from tokenizers import Tokenizer

        path = self.folder / "tokenizer.json" if kept is None else download_file(kept, self.report)
        _require(path.parent, path.name)
        try:
            # from_buffer raises ValueError; from_file and from_str raise a bare Exception
            tokenizer = Tokenizer.from_buffer(path.read_bytes())
        except (OSError, ValueError) as error:
            raise unreadable(path, "is not a tokenizer that this version can read") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def pickles(self) -> tuple[str, ...]:
        """Names of pickled files beside the weights. They are never opened, since opening them can run code."""
        return _pickles(self.folder)

    def tensor_names(self) -> tuple[str, ...]:
        """Names of all tensors, without reading their values. Raises CheckpointError as :meth:`tensors` does."""
        return tuple(name for path in self.weight_files() for name in _names(path))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor with its name, one at a time, on the CPU and in the dtype in which it is stored.

        ``report`` gets a line every few seconds, such as ``loading model.safetensors: 120 of 273 tensors``.

        Raises:
            CheckpointError: Weights are missing (all, or one shard), damaged, quantised, or only there as a pickle.
                Damage is found when the iterator reaches the file, and everything else by the call itself.
        """
        files = self.weight_files()
        return (pair for path in files for pair in _tensors(path, self.report))

    def weight_files(self) -> tuple[Path, ...]:
        """The safetensors files: one, or every shard.

        Raises:
            CheckpointError: A file is missing, or the weights are quantised.
        """
        refuse_quantised(self.folder, self.config)
        if (self.folder / WEIGHTS).is_file():
            return (self.folder / WEIGHTS,)
        index = self.json(INDEX)
        if index is None:
            raise _no_weights(self.folder)
        shards = _shard_names(self.folder, index)
        for name in shards:
            if not (self.folder / name).is_file():
                raise unusable(self.folder, name, f"is missing, but {INDEX} names it")
        return tuple(self.folder / name for name in shards)


def _find(source: str | Path, revision: str | None, report: Report) -> Path:
    path = Path(source).expanduser()
    if path.is_dir():
        if revision is not None:  # a folder must not stand in for what was pinned
            raise CheckpointError(
                f"{path} is a folder, which has no revision. To load the folder, leave out the revision; to load from "
                "the hub, rename the folder or work in another one.",
                "revision",
            )
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file; name the checkpoint's folder.")
    if not (isinstance(source, str) and _HUB_ID.fullmatch(source)):
        raise CheckpointError(
            f"There is no folder {path}; name an existing one, or a hub id such as 'organisation/name'."
        )
    if not _COMMIT.fullmatch(revision or ""):
        raise CheckpointError(
            f"There is no folder {source}, and as a hub id it needs a revision: pin a full commit id (40 hexadecimal "
            "digits), so that every replica loads the same files; branches and tags can move.",
            "revision",
            REVISION_MISSING,
        )
    assert revision is not None
    return download(source, revision, report)


def _require(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise missing(folder, name)
    return _read_object(path)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, "is not readable JSON") from error
    if not isinstance(content, dict):
        raise unusable(path.parent, path.name, f"holds a JSON {type(content).__name__} instead of an object")
    return content


def _shard_names(folder: Path, index: Mapping[str, Any]) -> tuple[str, ...]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise unusable(folder, INDEX, "has no 'weight_map' from tensors to file names")
    names = tuple(dict.fromkeys(weight_map.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise unusable(folder, INDEX, f"names {name!r}, which is not a safetensors file of this folder")
    return names


def _names(path: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise _damaged(path) from error


def _tensors(path: Path, report: Report) -> Iterator[tuple[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    names = _names(path)
    progress = Progress(report)
    try:
        with safe_open(path, framework="pt") as file:
            for count, name in enumerate(names, start=1):
                yield name, file.get_tensor(name)
                progress.update(f"loading {path.name}: {count} of {len(names)} tensors")
    except (SafetensorError, OSError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> CheckpointError:
    return unreadable(path, "is cut short or damaged: it cannot be read as safetensors")


def _pickles(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern)))


def _no_weights(folder: Path) -> CheckpointError:
    pickles = _pickles(folder)
    if pickles:
        return CheckpointError(
            f"{folder} has its weights only as a pickle ({pickles[0]}), which can run code and is never opened. "
            f"{_CONVERT}"
        )
    return CheckpointError(
        f"{folder} has neither {WEIGHTS} nor {INDEX}. Fetch the checkpoint again; "
        f"if its repository has only pytorch_model.bin, convert that. {_CONVERT}"
    )
