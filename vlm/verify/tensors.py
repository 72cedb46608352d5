"""Is every tensor there that the model needs, of the right shape and kind, with nothing but numbers in it?

One pass over the files, a tensor at a time, into a model without memory. Knows no model: rules come with the family.
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
    """What a pass over the tensors noted on its way."""

    kinds: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    unloadable: list[str] = field(default_factory=list)

    def stored(self, tensors: Tensors) -> Tensors:
        """Passes tensors on as the file has them."""
        for name, tensor in tensors:
            self.kinds[_kind(tensor)] += 1
            if count := _broken(tensor):
                self.broken.append(f"{name} has {count:,} of {tensor.numel():,} values that are NaN or infinite")
            yield name, tensor

    def native(self, tensors: Tensors, ignored: str) -> Tensors:
        """Passes tensors on as the family's rules read them."""
        for name, tensor in tensors:
            if tensor.dtype not in LOADABLE and not re.fullmatch(ignored, name):
                self.unloadable.append(f"{name} is {_kind(tensor)}")
            yield name, tensor


def check_tensors(checkpoint: Checkpoint, family: Family) -> Iterator[Finding]:
    """Names and shapes against the model, then dtypes, then values."""
    seen = _Seen()
    native = family.native_tensors(seen.stored(checkpoint.tensors()))
    try:
        load_weights(family.empty(checkpoint.config), seen.native(native, family.ignored), family.rules, family.ignored)
    except CheckpointError as error:
        if not seen.kinds:
            raise  # not one tensor could be read
        yield Finding("tensors", "FAILED", f"{error} Fetch weights and config.json of one revision.")
    else:
        yield Finding("tensors", "ok", "every tensor that the model needs, and no other, each of the right shape")
    kinds = ", ".join(f"{count} {kind}" for kind, count in seen.kinds.most_common())
    yield Finding.of("dtypes", seen.unloadable, kinds, "Only float32, float16 and bfloat16 weights can be loaded.")
    yield Finding.of("values", seen.broken, "all finite", "The file is damaged, or training failed: fetch it again.")


def _broken(tensor: Tensor) -> int:
    """How many values are NaN or infinite."""
    short = tensor.is_floating_point() and tensor.dtype not in LOADABLE
    return int((~(tensor.float() if short else tensor).isfinite()).sum())


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
