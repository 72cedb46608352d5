"""One Ray Serve application per model.

Turns everything that can go wrong on the way into our own errors, and chooses how a request crosses. Ray is imported
when a ``RayBackend`` is made, not before, and it knows no HTTP.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from router.admission.capacity import Capacity
from router.backends.applications import Application, Failures, Reported, applications_in, routers_in
from router.backends.base import ModelStatus, unknown
from router.backends.controller import Controller
from router.backends.model_info import ModelInfos
from router.backends.request_router import use_named_request_routers
from router.backends.snapshot import Snapshot
from vlm.errors import DeploymentFailed, EngineFailure, EngineLost, ModelNotReady, Overloaded, ReplicaLost, VlmError
from vlm.types import Chunk, ModelInfo, Request

ROUTER_APPLICATION = "router"

PLAIN: Mapping[str, str] = {"request_serialization": "pickle", "response_serialization": "pickle"}
"""Serve's own choice, cloudpickle, can also carry functions and classes, and is slower."""

MAX_GRPC_BYTES = 2 * 1024 * 1024
"""Requests with more bytes of images cross as calls of Ray's actors, which copy large arguments once; all others as
gRPC messages, at half the CPU time for small ones. Below the 4 MiB at which gRPC refuses a message by default."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the controller's report says.

    Attributes:
        applications: Those of the models, by their names.
        routers: Number of routers that run.
    """

    applications: Mapping[str, Application]
    routers: int = 1

    def answers(self, model: str) -> bool:
        """Whether a replica of the model does, or is being updated or replaced."""
        application = self.applications.get(model)
        return application is not None and application.status.ready and not application.asleep


NOTHING_KNOWN = Cluster({})


class RayBackend:
    """One Serve application per model; the application's name is the model's name.

    A request finds a model within ``max_age_s`` of its deployment. What nobody asks for, and that a model has more or
    fewer replicas, is noticed later where nothing has changed for long, and at once where a call fails: the controller
    of hundreds of replicas is not to be busy with answers that are all the same.
    """

    def __init__(
        self,
        serve: Any = None,
        report: Callable[[], Mapping[str, Reported]] | None = None,
        *,
        own_name: str = ROUTER_APPLICATION,
        max_age_s: float = 1.0,
        quiet_age_s: float = 10.0,
    ) -> None:
        """For the two ages see :class:`~router.backends.snapshot.Snapshot`.

        ``serve`` is the module ``ray.serve``, and it and ``report`` are substitutes in a test.
        """
        if serve is None:
            use_named_request_routers()
        self._serve = serve or importlib.import_module("ray.serve")
        self._report = report or Controller().report
        self._own_name = own_name
        self._failures = Failures()
        self._cluster = Snapshot(self._read, max_age_s, quiet_age_s=quiet_age_s)
        self._infos = ModelInfos(self._describe)
        self._handles: dict[str, Handles] = {}

    async def generate(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """See :class:`Backend`."""
        handle = (await self._connected(model)).carrying(request)
        calls = (_streamed if request.stream else _whole)(handle.remote(request))
        started = False
        try:
            async with aclosing(calls) as chunks:
                async for chunk in chunks:
                    if chunk.error is not None:
                        raise self._noted(chunk.error)
                    started = True
                    yield chunk
        except ray_errors() as error:
            self._cluster.doubt()
            raise translated(error, model, started=started) from error

    def _noted(self, error: VlmError) -> VlmError:
        """The same error; one that is not the client's may have to do with a change that is not known yet."""
        if isinstance(error, EngineFailure | Overloaded):
            self._cluster.doubt()
        return error

    async def models(self) -> Sequence[ModelStatus]:
        """See :class:`Backend`."""
        applications = (await self._cluster.latest()).applications
        infos = await self._infos.latest({name: one.version for name, one in applications.items()})
        return [replace(one.status, info=infos.get(name)) for name, one in sorted(applications.items())]

    def capacity(self, model: str) -> Capacity:
        """See :class:`Backend`. The controller counts replicas, the router's as well; each model's say their slots."""
        cluster = self._last
        application = cluster.applications.get(model)
        replicas = 0 if application is None else application.replicas
        info = self._infos.last.get(model)
        slots, rows = (0, 0) if info is None else (info.slots, info.rows)
        return Capacity(replicas, cluster.routers, slots, rows)

    def serves(self, model: str) -> bool:
        """See :class:`Backend`."""
        return model in self._last.applications

    def names(self) -> Collection[str]:
        """See :class:`Backend`."""
        return self._last.applications.keys()

    async def asleep(self, model: str) -> bool:
        """See :class:`Backend`."""
        application = await self._application(model)
        return application is not None and application.asleep

    @property
    def _last(self) -> Cluster:
        return self._cluster.last or NOTHING_KNOWN

    def _read(self) -> Cluster:
        report = self._report()
        applications = applications_in(report, self._own_name)
        self._failures.tell(applications.values())
        return Cluster(applications, routers_in(report, self._own_name))

    async def _application(self, model: str) -> Application | None:
        """The application, if there is one; a second look, where it does not answer, takes no old report for it."""
        cluster = await self._cluster.latest(is_good=lambda known: known.answers(model))
        return cluster.applications.get(model)

    async def _describe(self, model: str) -> ModelInfo:
        handles = await self._connected(model)
        try:
            info: ModelInfo = await handles.describe.remote()
        except ray_errors() as error:
            raise translated(error, model, started=False) from error
        return info

    async def _connected(self, model: str) -> Handles:
        """The cached handles: to make one, the controller is asked, and it opens a long poll of its own."""
        application = await self._application(model)
        for vanished in self._handles.keys() - self._last.applications.keys():
            del self._handles[vanished]
        if application is None:
            raise unknown(model)
        if not application.status.ready:
            raise _refusal(application)
        if not self._reaches(model, application):
            found = await asyncio.to_thread(self._find, model, application.deployment)
            if not self._reaches(model, application):  # another request may have been faster
                # In the event loop: with RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP=0, a handle works in the loop that made
                # it.
                self._handles[model] = Handles.of(found, application.deployment)
        return self._handles[model]

    def _reaches(self, model: str, application: Application) -> bool:
        """Whether the cached handles are those of the deployment; another version may call it otherwise."""
        handles = self._handles.get(model)
        return handles is not None and application.deployment in (None, handles.deployment)

    def _find(self, model: str, deployment: str | None) -> Any:
        """The handle; Serve gives out that of the application only while no new version of it is being built."""
        gone: tuple[type[Exception], ...] = (KeyError, *ray_errors())
        try:
            if deployment is not None:
                return self._serve.get_deployment_handle(deployment, model)
            return self._serve.get_app_handle(model)
        except gone as error:  # deleted since the snapshot was taken
            raise unknown(model) from error


def _refusal(application: Application) -> ModelNotReady:
    status = application.status
    if application.failed:
        return DeploymentFailed(
            f"The model {status.name!r} cannot answer: its last deployment failed, and it is not back before it is "
            "deployed again. The reason is in the output of `serve status` and in the router's log."
        )
    return ModelNotReady(f"The model {status.name!r} cannot answer yet: {status.detail}.")


async def _whole(answer: Any) -> AsyncGenerator[Chunk, None]:
    """The one chunk of an answer that does not stream, which crosses as the result of a call."""
    try:
        chunk = await answer
    except asyncio.CancelledError:
        answer.cancel()
        raise
    yield chunk


async def _streamed(answer: Any) -> AsyncGenerator[Chunk, None]:
    """Chunks as they come. The call is cancelled if they are given up before the last one."""
    ended = False
    try:
        async for chunk in answer:
            ended = chunk.completion is not None or chunk.error is not None
            yield chunk
        ended = True
    except ray_errors():
        ended = True
        raise
    finally:
        if not ended:
            answer.cancel()


@dataclass(frozen=True, slots=True)
class Handles:
    """The handles of one model: one for each method of its replicas, and for each way that a request may cross.

    They are made once: Serve copies a handle whenever an option or a method is chosen.

    Attributes:
        deployment: Whose they are; None where the application said none, or several.
    """

    deployment: str | None
    describe: Any
    generate: Mapping[bool, Any]
    answer: Mapping[bool, Any]

    @classmethod
    def of(cls, handle: Any, deployment: str | None) -> Handles:
        """All of them, from the handle of the application or of its deployment."""

        def of_method(method: str) -> dict[bool, Any]:
            streams = method == "generate"
            return {
                way: handle.options(method_name=method, stream=streams, _by_reference=way, **PLAIN)
                for way in (False, True)
            }

        return cls(deployment, of_method("describe")[False], of_method("generate"), of_method("answer"))

    def carrying(self, request: Request) -> Any:
        """The handle for ``request``, on the cheaper way."""
        images = (request.image or b"", *request.images)
        by_reference = sum(map(len, images)) > MAX_GRPC_BYTES
        return (self.generate if request.stream else self.answer)[by_reference]


def ray_errors() -> tuple[type[Exception], ...]:
    """What a call through a handle may raise."""
    ray, serve = importlib.import_module("ray.exceptions"), importlib.import_module("ray.serve.exceptions")
    return (ray.RayError, serve.RayServeException, importlib.import_module("grpc").RpcError)


def translated(error: BaseException, model: str, *, started: bool) -> VlmError:
    """Our error for one of Ray's. ``started``: the client already has a part of the answer."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, VlmError):  # Ray's class inherits from the cause's, but its text is a traceback
        return cause
    names = {kind.__name__ for kind in type(error).__mro__}
    if "BackPressureError" in names:
        return Overloaded(f"The queue of the model {model!r} is full; try again in a moment.", "model")
    if names & _FULL:
        return Overloaded("There is no memory for another image at this moment; try again in a moment.")
    if names & _GONE or _ended_connection(error):
        return (EngineLost if started else ReplicaLost)(_LOST[started].format(model))
    if "DeploymentUnavailableError" in names:
        return ModelNotReady(f"The model {model!r} cannot answer at this moment; try again later.")
    return EngineFailure(_FAILED.format(model))


def _ended_connection(error: BaseException) -> bool:
    """Whether gRPC says that the process at the other end has gone, or is about to."""
    code = getattr(error, "code", None)
    return callable(code) and getattr(code(), "name", None) in {"UNAVAILABLE", "CANCELLED"}


_FAILED = "The model {!r} failed while it worked on this request."
_LOST = ("The model {!r} lost the process that was to answer; try again in a moment.", _FAILED)
"""By whether the client already has a part of the answer."""


_FULL: frozenset[str] = frozenset(("OutOfDiskError", "ObjectStoreFullError"))
"""Ray's object store, which holds images on their way to a model, is full and is not to use the disk."""

_GONE: frozenset[str] = frozenset(
    ("RayActorError", "ActorUnavailableError", "NodeDiedError", "ReplicaUnavailableError")
)
"""The process that worked on the request has ended."""
