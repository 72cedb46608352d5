"""Checks that every tensor that the model needs is there, with the right shape, a dtype that loads, and finite values.

Reads the files once, a tensor at a time, into a model that takes no memory. Knows no model: the family has the rules.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vlm.checkpoint.files import Checkpoint
from vlm.checkpoint.weight_rules import Tensors, load_weights
from vlm.errors import CheckpointError
from vlm.models.checks import Finding
from vlm.models.family import Family

LOADABLE = (torch.float32, torch.float16, torch.bfloat16)


@dataclass
class _Seen:
    """What was noted while the tensors were read."""

    kinds: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    unloadable: list[str] = field(default_factory=list)

    def stored(self, tensors: Tensors) -> Tensors:
        """Note dtypes and values that are not finite, and pass the tensors of the files on."""
        for name, tensor in tensors:
            self.kinds[_kind(tensor)] += 1
            if count := _broken(tensor):
                self.broken.append(f"{name} has {count:,} of {tensor.numel():,} values that are NaN or infinite")
            yield name, tensor

    def native(self, tensors: Tensors, ignored: str) -> Tensors:
        """Note dtypes that cannot be loaded, and pass the tensors on that the family has converted."""
        for name, tensor in tensors:
            if tensor.dtype not in LOADABLE and not re.fullmatch(ignored, name):
                self.unloadable.append(f"{name} is {_kind(tensor)}")
            yield name, tensor


def check_tensors(checkpoint: Checkpoint, family: Family) -> Iterator[Finding]:
    """Check names and shapes against the model, then dtypes, then values."""
    seen = _Seen()
    native = family.native_tensors(seen.stored(checkpoint.tensors()))
    try:
        load_weights(family.empty(checkpoint.config), seen.native(native, family.ignored), family.rules, family.ignored)
    except CheckpointError as error:
        if not seen.kinds:
            raise  # no tensor could be read
        yield Finding("tensors", "FAILED", f"{error} Fetch weights and config.json of one revision.")
    else:
        yield Finding("tensors", "ok", "every tensor that the model needs, and no other, each of the right shape")
    kinds = ", ".join(f"{count} {kind}" for kind, count in seen.kinds.most_common())
    yield Finding.of("dtypes", seen.unloadable, kinds, "Only float32, float16 and bfloat16 weights can be loaded.")
    yield Finding.of("values", seen.broken, "all finite", "The file is damaged, or training failed: fetch it again.")


def _broken(tensor: Tensor) -> int:
    """The number of values that are NaN or infinite."""
    short = tensor.is_floating_point() and tensor.dtype not in LOADABLE
    return int((~(tensor.float() if short else tensor).isfinite()).sum())


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
