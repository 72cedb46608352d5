"""CPU work of a size that is known: small on the event loop, large in a worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

INLINE_BYTES = 256 * 1024
"""Work on up to this many bytes is done on the event loop, where it takes less time than a thread would add."""

THREADS = 2
"""Large work that is done at the same time. Threads take turns at running Python, and the event loop, which all other
requests need, is only one of them: it gets a turn after each of these."""

_large = ThreadPoolExecutor(THREADS, thread_name_prefix="large")  # starts a thread when there is work for it


async def in_thread_if_large(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of ``work``, which reads ``size`` bytes; other requests go on while it reads many."""
    if size <= INLINE_BYTES:
        return work(*args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_large, partial(work, *args, **kwargs))
