"""The limit on what this process may take of a GPU, and what it has taken, as torch's allocator knows both."""

from __future__ import annotations

import torch

from vlm.engine.gpu_share import Share, Taken


def share_of(device: torch.device, fraction: float) -> Share:
    """That part of the card ``device``."""
    return Share(_card(device), fraction)


def limit(device: torch.device, share: Share) -> None:
    """Let torch's allocator take no more than ``share`` leaves to it; beyond that, an allocation fails."""
    torch.cuda.set_per_process_memory_fraction(share.allocator_fraction, device)


def taken(device: torch.device) -> Taken | None:
    """What has been taken; None where there is no GPU."""
    if device.type != "cuda":
        return None
    return Taken(
        allocated=torch.cuda.memory_allocated(device),
        reserved=torch.cuda.memory_reserved(device),
        peak_allocated=torch.cuda.max_memory_allocated(device),
        peak_reserved=torch.cuda.max_memory_reserved(device),
        limit=int(torch.cuda.get_per_process_memory_fraction(device) * _card(device)),
    )


def _card(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).total_memory)
