"""Threads for what waits for the database of accounts on behalf of a route.

They are its own: a database that is slow, and whoever asks for usage again and again meanwhile, keep nobody else
waiting. The event loop's own threads find replicas of models and read files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 4

_waiting = ThreadPoolExecutor(
    THREADS, thread_name_prefix="accounts-routes"
)  # starts a thread when there is work for it


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of ``work``. Whoever is cancelled before it has begun asks nothing of the database."""
    return await asyncio.get_running_loop().run_in_executor(_waiting, partial(work, *args, **kwargs))
