"""What the replicas of each model have loaded, asked once for each deployed version."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from dataclasses import dataclass

from vlm.errors import VlmError
from vlm.types import ModelInfo

logger = logging.getLogger(__name__)


class ModelInfos:
    """The last known :class:`~vlm.types.ModelInfo` of every model.

    No caller waits longer than ``patience_s``; an answer that takes longer is returned by a later call. A model that
    does not answer is asked again after ``retry_s``.
    """

    def __init__(
        self,
        describe: Callable[[str], Awaitable[ModelInfo]],
        *,
        patience_s: float = 0.5,
        limit_s: float = 10.0,
        retry_s: float = 60.0,
    ) -> None:
        """``describe`` asks a replica of the model; it is given up after ``limit_s``."""
        self._describe = describe
        self._patience_s = patience_s
        self._limit_s = limit_s
        self._retry_s = retry_s
        self._infos: dict[str, ModelInfo] = {}
        self._inquiries: dict[str, _Inquiry] = {}

    @property
    def last(self) -> Mapping[str, ModelInfo]:
        """What is known, without asking anybody."""
        return self._infos

    async def latest(self, versions: Mapping[str, float | None]) -> Mapping[str, ModelInfo]:
        """What is known of the models in ``versions``.

        Args:
            versions: For every model a number that changes when it is deployed anew, or None while it cannot be asked:
                then its last known info is kept, because replicas of the last version still answer requests.
        """
        self._forget(self._inquiries.keys() - versions.keys())
        for model, version in versions.items():
            if version is not None and self._is_due(model, version):
                self._inquiries[model] = _Inquiry(version, _now(), self._inquiry(model))
        await self._wait()
        return dict(self._infos)

    def _forget(self, models: set[str]) -> None:
        for model in models:
            self._inquiries.pop(model).task.cancel()
            self._infos.pop(model, None)

    def _is_due(self, model: str, version: float) -> bool:
        last = self._inquiries.get(model)
        if last is None or last.version != version:
            return last is None or last.task.done()
        return last.task.done() and not last.answered and _now() - last.asked_at > self._retry_s

    def _inquiry(self, model: str) -> asyncio.Task[bool]:
        """In a context of its own: its lines in the log are of no request, although one has been the reason."""
        return asyncio.create_task(self._ask(model), context=Context())

    async def _wait(self) -> None:
        """Until all inquiries have ended or the youngest one has had its time."""
        running = [inquiry for inquiry in self._inquiries.values() if not inquiry.task.done()]
        youngest = max((inquiry.asked_at for inquiry in running), default=0.0)
        patience = youngest + self._patience_s - _now()
        if patience > 0:
            await asyncio.wait([inquiry.task for inquiry in running], timeout=patience)

    async def _ask(self, model: str) -> bool:
        """Whether there was an answer."""
        try:
            async with asyncio.timeout(self._limit_s):
                self._infos[model] = await self._describe(model)
        except (VlmError, TimeoutError) as error:
            logger.warning("what the model %r has loaded is unknown: %s", model, error)
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Inquiry:
    """One question to one model; ``asked_at`` is the event loop's time."""

    version: float
    asked_at: float
    task: asyncio.Task[bool]

    @property
    def answered(self) -> bool:
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None and self.task.result()


def _now() -> float:
    return asyncio.get_running_loop().time()
