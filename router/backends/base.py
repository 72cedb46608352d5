"""Where answers come from, as the router sees it; and the simplest backend, engines in this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from router.admission.capacity import Capacity
from vlm.errors import ModelNotFound
from vlm.types import Chunk, ModelInfo, Request


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One process of a model.

    Attributes:
        id: Its name in the cluster's logs and metrics; "" where it is not known.
        state: In a word: ``running`` once it answers.
    """

    id: str
    state: str


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """Whether a model can answer now.

    Attributes:
        name: Canonical name.
        ready: Whether it can answer.
        detail: Its state in words, which says why it is not ready.
        info: What is loaded; None where no replica has been asked yet or none answers.
        replicas: The processes that there are, whatever their state.
    """

    name: str
    ready: bool
    detail: str
    info: ModelInfo | None = None
    replicas: tuple[ReplicaStatus, ...] = ()


class Backend(Protocol):
    """What the router needs of the models behind it. ``model`` is always a canonical name."""

    def generate(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """The answer as it grows. Closing the generator gives the work up.

        Raises (before the first chunk where possible):
            VlmError: ModelNotFound, ModelNotReady, Overloaded, InvalidRequest, EngineFailure.
        """
        ...

    async def models(self) -> Sequence[ModelStatus]:
        """Every model that is configured, ready or not."""
        ...

    def capacity(self, model: str) -> Capacity:
        """What works on the model's requests, as last known; it waits for nobody."""
        ...

    def serves(self, model: str) -> bool:
        """Whether there is a model of this name, with a replica or without, as last known; it waits for nobody."""
        ...

    def names(self) -> Collection[str]:
        """All models of which :meth:`serves` says so. Any thread may ask."""
        ...

    async def asleep(self, model: str) -> bool:
        """Whether no process answers for the model now, while a request starts one or has done so."""
        ...


class Generator(Protocol):
    """What an engine offers; one that has an attribute ``info`` (:class:`~vlm.types.ModelInfo`) is listed with it."""

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """The answer as it grows."""
        ...


def unknown(model: str) -> ModelNotFound:
    """The error for a model that is not served."""
    return ModelNotFound(f"The model {model[:128]!r} is not served here. GET /v1/models lists those that are.")


class Before:
    """A backend in front of another one, which says the same of its models; what it adds is in ``generate``."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def models(self) -> Sequence[ModelStatus]:
        """See :class:`Backend`."""
        return await self._backend.models()

    def capacity(self, model: str) -> Capacity:
        """See :class:`Backend`."""
        return self._backend.capacity(model)

    def serves(self, model: str) -> bool:
        """See :class:`Backend`."""
        return self._backend.serves(model)

    def names(self) -> Collection[str]:
        """See :class:`Backend`."""
        return self._backend.names()

    async def asleep(self, model: str) -> bool:
        """See :class:`Backend`."""
        return await self._backend.asleep(model)


class LocalBackend:
    """Engines in this process: for tests, for a laptop, for one machine without Ray."""

    def __init__(self, engines: Mapping[str, Generator]) -> None:
        self._engines = engines

    async def generate(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """See :class:`Backend`."""
        if model not in self._engines:
            raise unknown(model)
        chunks = self._engines[model].generate(request)
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()

    async def models(self) -> Sequence[ModelStatus]:
        """See :class:`Backend`."""
        return [
            ModelStatus(
                name,
                ready=True,
                detail="in this process",
                info=getattr(engine, "info", None),
                replicas=(ReplicaStatus("", "running"),),
            )
            for name, engine in self._engines.items()
        ]

    def capacity(self, model: str) -> Capacity:
        """See :class:`Backend`."""
        engine = self._engines.get(model)
        slots, rows = getattr(engine, "slots", 0), getattr(engine, "rows", 0)
        return Capacity(int(engine is not None), slots=slots, rows=rows)

    def serves(self, model: str) -> bool:
        """See :class:`Backend`."""
        return model in self._engines

    def names(self) -> Collection[str]:
        """See :class:`Backend`."""
        return self._engines.keys()

    async def asleep(self, model: str) -> bool:  # noqa: ARG002
        """See :class:`Backend`."""
        return False


def not_ready(statuses: Iterable[ModelStatus], required: Sequence[str]) -> list[ModelStatus]:
    """The models for which the system is not ready: those of ``required`` that cannot answer.

    Where none is required, one model that can answer is enough; if there is none, all of them are named. So a load
    balancer goes on sending requests for the other models while one is being added, or has failed.
    """
    known = {status.name: status for status in statuses}
    if not required:
        return [] if any(status.ready for status in known.values()) else list(known.values())
    wanted = (known.get(name, ModelStatus(name, ready=False, detail="not deployed")) for name in required)
    return [status for status in wanted if not status.ready]
