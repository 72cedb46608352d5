"""The limit on what this process may take of a GPU, and what it has taken, as torch's allocator knows both."""

from __future__ import annotations

from collections.abc import Callable

import torch

from vlm.engine.config import EngineConfig
from vlm.engine.gpu_share import Needs, Share, Taken
from vlm.models.base import VisionLanguageModel

Admit = Callable[[VisionLanguageModel, int, torch.dtype], None]
"""Refuses a model without weights, by its number of parameters and their dtype, or does nothing."""


def share_of(device: torch.device, fraction: float) -> Share:
    """That part of the card ``device``."""
    return Share(_card(device), fraction)


def limit(device: torch.device, share: Share) -> None:
    """Let torch's allocator take no more than ``share`` leaves to it; beyond that, an allocation fails."""
    torch.cuda.set_per_process_memory_fraction(share.allocator_fraction, _index(device))


def within(device: torch.device, fraction: float, config: EngineConfig) -> Admit:
    """What :func:`vlm.loading.load` asks of a model before its weights take memory: to fit into a part of the card.

    A model that fits limits this process to that part from then on; another one is refused with a ConfigError.
    """

    def admit(model: VisionLanguageModel, parameters: int, dtype: torch.dtype) -> None:
        share = share_of(device, fraction)
        share.require(Needs.of(parameters * dtype.itemsize, model.cache, dtype.itemsize, config))
        limit(device, share)

    return admit


def taken(device: torch.device) -> Taken | None:
    """What has been taken; None where there is no GPU."""
    if device.type != "cuda":
        return None
    return Taken(
        allocated=torch.cuda.memory_allocated(device),
        reserved=torch.cuda.memory_reserved(device),
        peak_allocated=torch.cuda.max_memory_allocated(device),
        peak_reserved=torch.cuda.max_memory_reserved(device),
        limit=int(torch.cuda.get_per_process_memory_fraction(_index(device)) * _card(device)),
    )


def _index(device: torch.device) -> int:
    """The number of the card: "cuda" means the current one, which torch's functions for the limit do not take."""
    return torch.cuda.current_device() if device.index is None else device.index


def _card(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).total_memory)
