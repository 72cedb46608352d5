"""Keeps requests out of files: how large Ray's object store is, and what happens when it is full.

Bodies and images above 100 kB are in it while Ray's processes hand them to each other, until they are answered. Ray
would move what does not fit into it to files, and the whole of it if there is little shared memory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # Ray's own place for it, which is memory and not a folder on a disk
BYTES = 512 * 1024**2  # ten of the largest images, each as a body and as an image; taken only as far as it is used
MIN_BYTES = 75 * 1024**2  # Ray's own minimum

SYSTEM_CONFIG: Mapping[str, object] = {
    "automatic_object_spilling_enabled": False,
    # Without that, Ray would put what does not fit into a file of its own, unless the disk is fuller than this share;
    # any disk is. It then refuses what does not fit at once, which the router answers as an overload.
    "local_fs_capacity_threshold": 0.0,
    "local_fs_monitor_interval_ms": 3_600_000,  # Ray looks this often at the disk, and logs each time that it is full
}
"""Settings of Ray for a store that refuses what does not fit into it."""


def store_bytes(shared_memory: Path = SHARED_MEMORY) -> int:
    """Size of the store: less than usual where there is less shared memory, but no less than Ray's minimum."""
    return max(MIN_BYTES, min(BYTES, _available(shared_memory)))


def warning(shared_memory: Path = SHARED_MEMORY) -> str:
    """What to tell the user where shared memory is too small for the store; empty if it is not."""
    if (available := _available(shared_memory)) < MIN_BYTES:
        return (
            f"{shared_memory} has {available >> 20} MiB, so that large images pass through a file that nobody else can "
            f"open; with {MIN_BYTES >> 20} MiB they stay in memory (docker run --shm-size={BYTES >> 20}m)"
        )
    return ""


def _available(shared_memory: Path) -> int:
    """Free bytes of shared memory. Where there is no such folder, as on macOS, Ray takes a file of any size."""
    if not shared_memory.is_dir():
        return BYTES
    found = os.statvfs(shared_memory)
    return found.f_bavail * found.f_frsize
