"""``FAMILY`` in a family's ``model.py``: what it takes to load, synthesise and verify its checkpoints.

Used by ``vlm/loading.py`` and ``vlm/verify``; the engine gets the model and the processor that are made from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from vlm.checkpoint.files import Checkpoint
from vlm.checkpoint.weight_rules import NOTHING, Parameters, Rule, Tensors, unchanged
from vlm.models.base import VisionLanguageModel
from vlm.models.checks import Finding
from vlm.models.processor import Processor


class ModelModule(VisionLanguageModel, Parameters, Protocol):
    """A model as its family makes it: a torch module without values, which ``vlm/loading.py`` fills."""

    def eval(self) -> Self:
        """As in nn.Module."""
        ...

    def finish(self, checkpoint: Checkpoint) -> None:
        """Called once, after the parameters have been filled.

        Read what is in the checkpoint's other files here (defaults, ids), and compute tables: values that ``__init__``
        wrote into buffers are lost, because it ran on the meta device.

        Raises:
            CheckpointError: A file is missing or does not fit.
        """
        ...


def no_checks(checkpoint: Checkpoint) -> Iterable[Finding]:  # noqa: ARG001  the hook's signature
    """No further checks: for families where loading finds every mistake in the files."""
    return ()


@dataclass(frozen=True, slots=True)
class Family:
    """A model family; see ``docs/adding-a-model.md``.

    Attributes:
        model_types: Values of ``model_type`` in config.json that it serves.
        model: Makes the model for the content of a config.json; see :meth:`empty`.
        processor: Makes the processor of a checkpoint.
        rules: Names of the model's parameters in a checkpoint.
        write_files: Writes all files of a checkpoint folder but the weights, for the content of a config.json.
        sizes: Contents of config.json to synthesise: "tiny", and "real" with the sizes of the published checkpoint.
        ignored: Regular expression of the names of tensors that a checkpoint may have and the model does not need.
        native_tensors: Converts tensors of other uploads to the names and shapes that ``rules`` expect.
        checks: What ``python -m vlm.verify`` checks beyond what loading does, such as that a readable tokenizer is not
            that of other weights. May raise CheckpointError.
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
        """The model for a config.json on the meta device: shapes without memory. Raises CheckpointError."""
        with torch.device("meta"), _WithoutInitialisation():
            return self.model(config)


class _WithoutInitialisation(TorchFunctionMode):
    """Modules that are made within it draw no initial values: the checkpoint's replace them.

    On the meta device there is nothing to draw, but torch would still import its compiler for it, which takes as long
    as the import of torch itself.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if getattr(func, "__module__", None) == nn.init.__name__:
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)
