"""Where answers come from: engines in this process, or one Ray Serve application per model.

Turns everything that can go wrong on the way into our own errors. Knows nothing of HTTP. Ray is imported when a
``RayBackend`` is made, not before.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from router.backends.base import ModelStatus, unknown
from vlm.errors import EngineFailure, ModelNotReady, Overloaded, VlmError
from vlm.types import Chunk, Request

logger = logging.getLogger(__name__)

ROUTER_APPLICATION = "router"


class RayBackend:
    """One Serve application per model; the application's name is the model's name.

    A model that is deployed or deleted while the router runs appears or vanishes within ``max_age_s``.
    """

    def __init__(self, serve: Any = None, *, own_name: str = ROUTER_APPLICATION, max_age_s: float = 1.0) -> None:
        """``serve`` is the module ``ray.serve``, or what stands in for it in a test."""
        self._serve = serve or importlib.import_module("ray.serve")
        self._applications = Snapshot(lambda: read_statuses(self._serve, own_name), max_age_s)
        self._handles: dict[str, Any] = {}

    async def generate(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """See :class:`Backend`."""
        handle = await self._handle(model)
        answer, started, finished = handle.generate.remote(request), False, False
        try:
            async for chunk in answer:
                if chunk.error is not None:
                    finished = True
                    raise chunk.error
                started = True
                yield chunk
            finished = True
        except ray_errors() as error:
            finished = True
            raise translated(error, model, started=started) from error
        finally:
            if not finished:
                answer.cancel()

    async def models(self) -> Sequence[ModelStatus]:
        """See :class:`Backend`."""
        return sorted((await self._applications.latest()).values(), key=lambda status: status.name)

    async def _handle(self, model: str) -> Any:
        """The cached handle: each ``options`` call opens a long poll of its own to the controller."""
        statuses = await self._applications.latest()
        for vanished in self._handles.keys() - statuses.keys():
            del self._handles[vanished]
        if model not in statuses:
            raise unknown(model)
        if not statuses[model].ready:
            raise ModelNotReady(f"The model {model!r} cannot answer yet: {statuses[model].detail}.")
        if model not in self._handles:
            self._handles[model] = await asyncio.to_thread(self._connect, model)
        return self._handles[model]

    def _connect(self, model: str) -> Any:
        try:
            return self._serve.get_app_handle(model).options(stream=True)
        except ray_errors() as error:  # deleted since the last look
            raise unknown(model) from error


class Snapshot:
    """The statuses of the applications, read again when they are older than ``max_age_s``.

    The controller may be away, with its node, while the models go on answering: then the last snapshot is used, and
    nobody waits longer than ``patience_s`` for a new one.
    """

    def __init__(
        self, read: Callable[[], Mapping[str, ModelStatus]], max_age_s: float, patience_s: float = 2.0
    ) -> None:
        self._read = read
        self._max_age_s = max_age_s
        self._patience_s = patience_s
        self._statuses: Mapping[str, ModelStatus] | None = None
        self._read_at = float("-inf")
        self._asked_at = float("-inf")
        self._reading: asyncio.Task[Mapping[str, ModelStatus]] | None = None

    async def latest(self) -> Mapping[str, ModelStatus]:
        """The statuses by name.

        Raises:
            ModelNotReady: There has never been an answer.
        """
        if time.monotonic() - self._read_at > self._max_age_s:
            await self._refresh()
        if self._statuses is None:
            raise ModelNotReady("The cluster does not answer yet; try again in a moment.")
        return self._statuses

    async def _refresh(self) -> None:
        """Wait for the one reader that runs at a time, starting it if need be."""
        if self._reading is None:
            self._asked_at = time.monotonic()
            self._reading = asyncio.create_task(asyncio.to_thread(self._read))
            self._reading.add_done_callback(self._take)
        patience = max(0.0, self._asked_at + self._patience_s - time.monotonic())
        await asyncio.wait({self._reading}, timeout=patience)

    def _take(self, reading: asyncio.Task[Mapping[str, ModelStatus]]) -> None:
        self._reading = None
        if reading.cancelled():
            return
        self._read_at = time.monotonic()
        if (error := reading.exception()) is None:
            self._statuses = reading.result()
        else:
            logger.warning("the cluster's applications cannot be read: %s", type(error).__name__)


def read_statuses(serve: Any, own_name: str) -> dict[str, ModelStatus]:
    """What Serve says about every application but the router's own. Blocks."""
    applications = serve.status().applications
    return {name: status_of(name, app) for name, app in applications.items() if name != own_name}


def status_of(name: str, application: Any) -> ModelStatus:
    """Ready when running, or when every deployment has a replica that runs.

    The second is a rolling update, one that failed, or a lost replica: refusing then would turn it into an outage.
    The first includes a model scaled to zero, which the request itself wakes.
    """
    state = _text(application.status)
    replicas = [_running(deployment.replica_states) for deployment in application.deployments.values()]
    still_up = state in ("DEPLOYING", "DEPLOY_FAILED", "UNHEALTHY") and bool(replicas) and all(replicas)
    return ModelStatus(name, ready=state == "RUNNING" or still_up, detail=state.lower().replace("_", " "))


def _running(replica_states: Mapping[Any, int]) -> int:
    return sum(count for state, count in replica_states.items() if _text(state) == "RUNNING")


def _text(state: Any) -> str:
    return str(getattr(state, "value", state))


def ray_errors() -> tuple[type[Exception], ...]:
    """What a call through a handle may raise."""
    ray, serve = importlib.import_module("ray.exceptions"), importlib.import_module("ray.serve.exceptions")
    return (ray.RayError, serve.RayServeException)


def translated(error: BaseException, model: str, *, started: bool) -> VlmError:
    """Our error for one of Ray's. ``started``: the client already has a part of the answer."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, VlmError):  # Ray's class inherits from the cause's, but its text is a traceback
        return cause
    names = {kind.__name__ for kind in type(error).__mro__}
    if "BackPressureError" in names:
        return Overloaded(f"Every place of the model {model!r} is taken; try again in a moment.", "model")
    if not started and names & _GONE:
        return ModelNotReady(f"The model {model!r} lost the process that was to answer; try again in a moment.")
    return EngineFailure(f"The model {model!r} failed while it worked on this request.")


_GONE: frozenset[str] = frozenset(
    ("RayActorError", "ActorUnavailableError", "NodeDiedError", "DeploymentUnavailableError", "ReplicaUnavailableError")
)
