"""Keeps what a backend knows of its models up to date, also while nobody asks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from router.backends.base import Backend
from vlm.errors import VlmError

logger = logging.getLogger(__name__)

COUNT_S = 1.0
"""Seconds between two counts. A backend may keep what it knows for longer (:mod:`router.backends.snapshot`)."""


@asynccontextmanager
async def counting(backend: Backend) -> AsyncIterator[None]:
    """Count replicas once, so that the first request finds them counted, and then every COUNT_S within the block."""
    await _count(backend)
    task = asyncio.create_task(_keep_counting(backend))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _keep_counting(backend: Backend) -> None:
    while True:
        await asyncio.sleep(COUNT_S)
        await _count(backend)


async def _count(backend: Backend) -> None:
    """What was known holds where the cluster does not answer, or says what nobody expects."""
    try:
        await backend.models()
    except VlmError:
        pass  # it is logged where it is noticed
    except Exception:
        logger.exception("the models' replicas cannot be counted")
