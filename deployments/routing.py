"""Serve's hook for the choice of a replica: each process that has a handle of a model makes one of these.

What is chosen is in ``deployments.affinity``. Serve's own part stays as it is: it asks a replica whose queue it does
not know, goes on to the next rank where one is full, and forgets a replica that has died.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.serve._private.request_router.common import PendingRequest
from ray.serve._private.request_router.request_router import RequestRouter

from deployments.affinity import Affinity


class ImageRouter(RequestRouter):
    """Sends requests about an image to the replica that has seen it."""

    def initialize_state(self, capacity: int) -> None:
        """Serve calls this once. ``capacity``: requests that the engine of a replica takes."""
        self._affinity = Affinity(capacity, self._queue_of)
        self._known: Sequence[Any] | None = None
        self._by_name: dict[str, Any] = {}

    async def choose_replicas(
        self, candidate_replicas: list[Any], pending_request: PendingRequest | None = None
    ) -> list[list[Any]]:
        """Serve calls this for every request, and again after a pause until a replica has taken it."""
        if pending_request is None or not candidate_replicas:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True  # else Serve asks again without a pause
        self._learn(candidate_replicas)
        names = self._affinity.ranks(_asked(pending_request), list(self._by_name))
        return [[self._by_name[name] for name in rank] for rank in names]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: Any, result: Any) -> None:  # noqa: ARG002
        """Serve calls this when a replica has taken a request."""
        self._affinity.routed(_asked(pending_request), replica_id.unique_id)

    def _learn(self, replicas: list[Any]) -> None:
        """Serve makes a new list whenever a replica comes or goes."""
        if replicas is not self._known:
            self._known = replicas
            self._by_name = {one.replica_id.unique_id: one for one in replicas}
            self._affinity.keep_only(list(self._by_name))

    def _queue_of(self, name: str) -> int | None:
        length: int | None = self._replica_queue_len_cache.get(self._by_name[name].replica_id)
        return length


def _asked(pending: PendingRequest) -> object:
    """The argument of ``Replica.answer`` and ``Replica.generate``, before it crosses; None for other calls."""
    return pending.args[0] if pending.args else None
