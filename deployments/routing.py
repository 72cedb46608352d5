"""Serve's hook for the choice of a replica: each process that has a handle of a model makes one of these.

What is chosen is in ``deployments.affinity``. Serve's own part stays as it is: it asks a replica whose queue it does
not know, goes on to the next rank where one is full, and forgets a replica that has died. Its ``FIFOMixin`` is left
out: with it, the replica chosen for one request may be given to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.serve._private.request_router.common import PendingRequest
from ray.serve._private.request_router.request_router import RequestRouter
from ray.serve.config import RequestRouterConfig

from deployments.affinity import Affinity, Underway
from router.backends.request_router import NAMED
from vlm.types import Request


class ImageRouter(RequestRouter):
    """Sends requests about an image to the replica that has seen it."""

    def initialize_state(self, capacity: int, **_named: str) -> None:
        """Serve calls this once. ``capacity``: requests that an engine takes."""
        self._capacity = capacity
        self._affinity = Affinity(self._queue_of)
        self._known: Sequence[Any] | None = None
        self._by_name: dict[str, Any] = {}
        self._underway = Underway()

    async def choose_replicas(
        self, candidate_replicas: list[Any], pending_request: PendingRequest | None = None
    ) -> list[list[Any]]:
        """Serve calls this for every request, and again after a pause until a replica has taken it."""
        if pending_request is None or not candidate_replicas:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True  # else Serve asks again without a pause
        if candidate_replicas is not self._known:  # Serve makes a new list whenever a replica comes, goes or changes
            self._learn(candidate_replicas)
        request = _asked(pending_request)
        ranks = self._affinity.ranks(request)
        if isinstance(request, Request) and request.route is not None and ranks:
            self._underway.set_out(request.route, ranks[0])
        return [[self._by_name[name] for name in rank] for rank in ranks]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: Any, result: Any) -> None:  # noqa: ARG002
        """Serve calls this when a replica has taken a request."""
        request = _asked(pending_request)
        if isinstance(request, Request) and request.route is not None:
            request.route.taken.append(replica_id.unique_id)
            self._underway.arrived(request.route)

    def _learn(self, replicas: list[Any]) -> None:
        self._known = replicas
        self._by_name = {one.replica_id.unique_id: one for one in replicas}
        self._affinity.set_replicas(list(self._by_name), min(self._capacity, replicas[0].max_ongoing_requests))

    def _queue_of(self, name: str) -> int | None:
        length: int | None = self._replica_queue_len_cache.get(self._by_name[name].replica_id)
        underway = self._underway.to(name)
        return length + underway if length is not None else underway or None


def by_image(capacity: int) -> RequestRouterConfig:
    """What a deployment is given so that the routers' handles choose its replicas this way.

    The class is named among its own arguments, which ``router.backends.request_router`` reads: see there.
    """
    name = f"{ImageRouter.__module__}.{ImageRouter.__qualname__}"
    return RequestRouterConfig(request_router_kwargs={"capacity": capacity, NAMED: name})


def _asked(pending: PendingRequest) -> object:
    """The argument of ``Replica.answer`` and ``Replica.generate``, before it crosses; None for other calls."""
    return pending.args[0] if pending.args else None
