"""Numbers from Python to the device, without waiting for what the device is at."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

Numbers = Any
"""A numpy array, or numbers in nested sequences of one shape."""


def upload(numbers: Numbers, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor on ``device``; of the dtype that :func:`torch.tensor` gives it if there is no ``dtype``."""
    return staged(numbers, device, dtype).to(device, non_blocking=True)


def staged(numbers: Numbers, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor on the host, from which a copy to ``device`` may be ``non_blocking``.

    A copy from ordinary memory to a GPU would first wait until the GPU has done all that it was given. PyTorch keeps
    this memory until the copy has been made, and then uses it again.
    """
    host = torch.from_numpy(numbers) if isinstance(numbers, np.ndarray) else torch.tensor(numbers, dtype=dtype)
    if device.type != "cuda":
        return host
    pinned = torch.empty(host.shape, dtype=host.dtype, pin_memory=True)
    # NumPy copies in this thread. PyTorch would use all cores, and wait for milliseconds for one that is busy.
    np.copyto(pinned.numpy(), host.numpy())
    return pinned
