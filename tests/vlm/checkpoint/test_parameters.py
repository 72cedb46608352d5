"""A module on the meta device gets the very tensors it is given, and shared parameters stay shared."""

from __future__ import annotations

import torch
from torch import nn

from vlm.checkpoint.parameters import allocate_buffers, empty, place, shapes

CPU = torch.device("cpu")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5)
        self.head.weight = self.tokens.weight
        self.register_buffer("scale", torch.ones(3))
        self.register_buffer("counts", torch.ones(2, dtype=torch.long), persistent=False)


def tied() -> Tied:
    with torch.device("meta"):
        return Tied()


def test_parameters_are_the_given_tensors_and_not_copies() -> None:
    module = tied()
    tensors = empty(shapes(module), torch.bfloat16, CPU)
    place(module, tensors)
    assert set(tensors) == {"tokens.weight", "head.bias"}
    for name, parameter in module.named_parameters():
        assert parameter.data_ptr() == tensors[name].data_ptr()
        assert parameter.dtype == torch.bfloat16
    assert module.head.weight is module.tokens.weight


def test_placing_again_replaces_them() -> None:
    module = tied()
    place(module, empty(shapes(module), torch.float32, CPU))
    place(module, {name: torch.ones(shape) for name, shape in shapes(module).items()})
    assert all(parameter.eq(1).all() for parameter in module.parameters())
    assert module.head.weight is module.tokens.weight


def test_buffers_get_memory_and_stay_what_they_were() -> None:
    module = tied()
    allocate_buffers(module, torch.float16, CPU)
    assert {name: (buffer.device, buffer.dtype) for name, buffer in module.named_buffers()} == {
        "scale": (CPU, torch.float16),
        "counts": (CPU, torch.long),
    }
    assert "counts" not in module.state_dict()
