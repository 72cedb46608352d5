"""Copies a checkpoint's tensors into a module whose parameters have other names, and reports what does not fit.

A model's ``weights.py`` lists rules from our parameter names to the checkpoint's names; a fused matrix has several
sources. In this direction, a missing tensor can be reported by the name that it should have in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vlm.checkpoint.unfit import advice_on
from vlm.errors import CheckpointError

Tensors = Iterable[tuple[str, Tensor]]
"""(name, tensor) pairs, one at a time."""

NOTHING = r"(?!)"
"""A regular expression that no name matches."""


class Parameters(Protocol):
    """What loading needs of a module: its parameters by name."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter with its name in the module."""
        ...


@dataclass(frozen=True, slots=True)
class Rule:
    r"""Where one kind of parameter comes from.

    Attributes:
        ours: Regular expression on the whole of our parameter's name.
        theirs: Names in the checkpoint (templates with ``\1`` ...), stacked along the first axis in this order.
        aliases: Other names under which a checkpoint may hold the same tensor (tied weights).
    """

    ours: str
    theirs: tuple[str, ...]
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WeightTarget:
    """Where a tensor is copied to: a whole parameter, or one part of a fused one."""

    parameter: str
    part: int
    parts: int
    is_alias: bool = False


@torch.no_grad()
def load_weights(module: Parameters, tensors: Tensors, rules: Sequence[Rule], ignored: str = NOTHING) -> None:
    """Copy ``tensors`` into ``module``, cast to each parameter's dtype.

    Args:
        module: Its parameters must be allocated (not on the meta device).
        tensors: (name in the checkpoint, tensor) pairs, in any order.
        rules: The first rule that matches a parameter's name gives its sources.
        ignored: Regular expression of checkpoint names that are known and not needed.

    Raises:
        CheckpointError: Tensors are missing, unexpected, or of another shape; each is named.
    """
    parameters = dict(module.named_parameters())
    targets = {name: target for key in parameters for name, target in sources(key, rules)}
    unexpected: list[str] = []
    misshapen: list[str] = []
    filled: set[tuple[str, int]] = set()
    for name, tensor in tensors:
        target = targets.get(name)
        if target is not None:
            if target.is_alias and (target.parameter, target.part) in filled:
                continue  # the tensor's own name takes precedence, in whatever order the file has them
            misshapen += _fill(parameters[target.parameter], target, name, tensor)
            filled.add((target.parameter, target.part))
        elif not re.fullmatch(ignored, name):
            unexpected.append(name)
    missing = sorted(n for n, t in targets.items() if not t.is_alias and (t.parameter, t.part) not in filled)
    _report({"missing": missing, "unexpected": unexpected, "of another shape": misshapen})


def unchanged(tensors: Tensors) -> Tensors:
    """The tensors as they are: for families whose checkpoints all use the same names."""
    return tensors


def sources(parameter: str, rules: Sequence[Rule]) -> Iterator[tuple[str, WeightTarget]]:
    """(name in the checkpoint, target) pairs of one of our parameters, aliases last."""
    for rule in rules:
        match = re.fullmatch(rule.ours, parameter)
        if match:
            for part, template in enumerate(rule.theirs):
                yield match.expand(template), WeightTarget(parameter, part, len(rule.theirs))
            for alias in rule.aliases:
                yield match.expand(alias), WeightTarget(parameter, 0, 1, is_alias=True)
            return
    raise AssertionError(f"no rule for the parameter {parameter}")


def _fill(parameter: Tensor, target: WeightTarget, name: str, tensor: Tensor) -> list[str]:
    """Copy ``tensor`` into its target; returns the fault of its shape, or nothing."""
    part = parameter.chunk(target.parts, dim=0)[target.part]
    if part.shape != tensor.shape:
        return [f"{name}: {tuple(tensor.shape)} instead of {tuple(part.shape)}"]
    part.copy_(tensor)
    return []


def _report(found: Mapping[str, Sequence[str]]) -> None:
    faults = [
        f"{len(names)} {kind} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        for kind, names in found.items()
        if names
    ]
    if faults:
        advice = advice_on(found["unexpected"])
        raise CheckpointError(f"The checkpoint does not fit its config.json: tensors {' and '.join(faults)}.{advice}")
