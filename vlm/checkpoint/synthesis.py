"""Writes checkpoint folders of random weights, in the exact layout of the hub, from a family's own rules.

They serve to measure at the real size without the real weights, and tests that do not need trained weights. The answers
of such a model are gibberish, but it is as fast as the real one, and two implementations must still give the same ones.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vlm.checkpoint.weight_rules import Parameters, Rule, sources

_POOL = 1 << 20


def write_json(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Write JSON files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")


def write_weights(folder: Path, module: Parameters, rules: Sequence[Rule], seed: int) -> None:
    """Synthesise every parameter of ``module`` into model.safetensors, as float16.

    ``module`` may be on the meta device: only its shapes are used.
    """
    values = _RandomWeights(seed)
    tensors = {
        name: part.contiguous()
        for key, parameter in module.named_parameters()
        for name, part in zip(*_named(key, parameter, rules, values), strict=True)
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _named(
    key: str, parameter: Tensor, rules: Sequence[Rule], values: _RandomWeights
) -> tuple[list[str], Sequence[Tensor]]:
    names = [name for name, target in sources(key, rules) if not target.is_alias]
    return names, values.parameter(key, parameter.shape).chunk(len(names), dim=0)


class _RandomWeights:
    """Repeats a pool of normally distributed numbers with varying periods: sampling billions would take minutes."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._pool = torch.randn(_POOL, generator=self._generator).half()

    def parameter(self, name: str, shape: torch.Size) -> Tensor:
        """Norms are near one, biases near zero, and matrices keep the scale of their input."""
        values = self._normal(shape.numel()).view(shape)
        if len(shape) == 1:
            return values.mul_(0.1).add_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        # A depthwise convolution is added to its own input in dozens of layers. At full scale the sum would overflow.
        depthwise = len(shape) == 4 and shape[1] == 1
        return values.mul_(shape[1:].numel() ** -0.5 * (0.1 if depthwise else 1.0))

    def _normal(self, count: int) -> Tensor:
        # The period is odd and rows have an even length, so that no two rows of a matrix are equal.
        period = _POOL - 1 - 2 * int(torch.randint(0, 1000, (1,), generator=self._generator))
        values = torch.empty(count, dtype=torch.float16)
        for start in range(0, count, period):
            values[start : start + period] = self._pool[: min(period, count - start)]
        return values


def made_up_words() -> Iterator[str]:
    """Endless distinct lower-case words: ba, be, ..., baba, babe, ..."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    for count in itertools.count(1):
        yield from map("".join, itertools.product(syllables, repeat=count))
