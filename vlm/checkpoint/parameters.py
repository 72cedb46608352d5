"""Gives a module on the meta device the tensors that it runs with.

torch's own ``to_empty`` does the same, but its first call takes a quarter of a second: it loads a symbolic algebra.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    """The shape of each parameter, by name."""
    return {name: parameter.shape for name, parameter in module.named_parameters()}


def empty(sizes: Mapping[str, torch.Size], dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Memory of these shapes, without values."""
    return {name: torch.empty(size, dtype=dtype, device=device) for name, size in sizes.items()}


def place(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make ``tensors`` the module's parameters, by name, without a copy; a parameter that is shared stays shared."""
    for parameter, names in _names(module).items():
        placed = nn.Parameter(tensors[names[0]], requires_grad=parameter.requires_grad)
        for name in names:
            _put(module, name, placed)


def allocate_buffers(module: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Give every buffer memory without values; numbers with a fraction get ``dtype``."""
    for name, buffer in list(module.named_buffers()):
        kind = dtype if buffer.is_floating_point() else buffer.dtype
        _put(module, name, torch.empty(buffer.shape, dtype=kind, device=device))


def _names(module: nn.Module) -> dict[nn.Parameter, list[str]]:
    """All names of each parameter; the first is that of :func:`shapes`."""
    found: dict[nn.Parameter, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        found.setdefault(parameter, []).append(name)
    return found


def _put(module: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, own_name = name.rpartition(".")
    setattr(module.get_submodule(owner), own_name, tensor)
