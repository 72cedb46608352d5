"""Writes checkpoint folders of freshly drawn weights, in the exact layout of the hub, from a family's own rules.

For measuring at real size without the real weights, and for tests that need any weights at all. What such a model
says is gibberish; how long it takes, and whether two implementations agree on it, is not.
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
    """Draw every parameter of ``module`` into model.safetensors, as float16.

    ``module`` may be on the meta device: only its shapes are used.
    """
    drawn = _Draw(seed)
    tensors = {
        name: part.contiguous()
        for key, parameter in module.named_parameters()
        for name, part in zip(*_named(key, parameter, rules, drawn), strict=True)
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _named(key: str, parameter: Tensor, rules: Sequence[Rule], drawn: _Draw) -> tuple[list[str], Sequence[Tensor]]:
    names = [name for name, place in sources(key, rules) if not place.is_alias]
    return names, drawn.parameter(key, parameter.shape).chunk(len(names), dim=0)


class _Draw:
    """Repeats one pool of normal numbers at changing offsets: drawing billions anew would take minutes."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._pool = torch.randn(_POOL, generator=self._generator).half()

    def parameter(self, name: str, shape: torch.Size) -> Tensor:
        """Norms near one, biases near zero, matrices that keep the size of what goes through them."""
        values = self._normal(shape.numel()).view(shape)
        if len(shape) == 1:
            return values.mul_(0.1).add_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        # A depthwise convolution is added to what it reads, dozens of times over: at full gain that would explode.
        depthwise = len(shape) == 4 and shape[1] == 1
        return values.mul_(shape[1:].numel() ** -0.5 * (0.1 if depthwise else 1.0))

    def _normal(self, count: int) -> Tensor:
        # The period is odd, so that the rows of a matrix, whose length is even, never line up.
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
