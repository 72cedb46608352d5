"""Which replica gets a request: the one that has seen its image, as long as it has not much more to do than others.

The choice alone, of names; ``deployments.routing`` makes it for Ray Serve. Imports no Ray and asks nobody: all that it
knows of a replica is its name and the length of its queue as far as this process has heard of it.
"""

from __future__ import annotations

import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import blake2b
from weakref import WeakKeyDictionary

from vlm.route import Route
from vlm.types import Request

SAMPLES = 16
SAMPLE_BYTES = 256
"""Of a longer image, so many parts of that size are hashed, with its length: 4 KiB, whatever its size. Two images that
differ between them alone meet the same replica, which is harmless."""

SLOTS = 2**14
"""Images with the same remainder of their hash by this share an order of the replicas, which is then remembered: some
MB at most, and hundreds of slots for each of 64 replicas, so that their shares are even."""

RANKS = 8
"""Replicas in an image's order that are considered. They are as good as drawn at random, so that the mean of their
queues stands for that of all."""

SPARE = 4
FACTOR = 1.25
"""A queue may have SPARE requests more than FACTOR times the mean before an image goes to the next replica in its
order: with less, hits are lost that would have cost less time than they save, and with more, requests wait longer
(``python -m benchmarks.affinity``)."""

SHUNNED_S = 1.0
"""For so long nobody's image goes first to a replica that takes no more requests. Serve notices that by its health
checks; until then such a replica has the shortest queue of all."""


class Affinity:
    """Ranks replicas for one request after the other. Every router process makes the same choice for an image."""

    def __init__(self, queue: Callable[[str], int | None], clock: Callable[[], float] = time.monotonic) -> None:
        """``queue``: the length of the queue of a replica; None if it is unknown."""
        self._queue = queue
        self._clock = clock
        self._names: list[str] = []
        self._capacity = 0
        self._orders: dict[int, list[str]] = {}
        self._shunned: dict[str, float] = {}

    def set_replicas(self, names: Sequence[str], capacity: int) -> None:
        """These are all replicas from now on, and each takes so many requests."""
        self._names = list(names)
        self._capacity = capacity
        self._orders.clear()
        self._shunned = {name: until for name, until in self._shunned.items() if name in self._names}

    def ranks(self, request: object) -> list[list[str]]:
        """The replicas that may have the request, best first; among those of one rank, the shortest queue decides.

        Args:
            request: A :class:`~vlm.types.Request`, or anything else that replicas are asked.
        """
        route = request.route if isinstance(request, Request) else None
        avoided = self._avoided(route)
        key = image_key(request) if isinstance(request, Request) and len(self._names) > 1 else None
        ranks = self._any_two(avoided) if key is None else self._in_order(key, avoided)
        last = [name for name in self._names if name in avoided] if avoided else []
        return [rank for rank in (*ranks, last) if rank]

    def _avoided(self, route: Route | None) -> Sequence[str]:
        """Replicas that come last: where this request has had trouble, and those that refuse everybody."""
        if route is not None and route.gone and route.taken:
            route.gone = False
            self._shunned[route.taken[-1]] = self._clock() + SHUNNED_S
        if self._shunned:
            now = self._clock()
            self._shunned = {name: until for name, until in self._shunned.items() if until > now}
        tried = () if route is None else route.taken
        return (*tried, *self._shunned) if tried or self._shunned else ()

    def _any_two(self, avoided: Sequence[str]) -> list[list[str]]:
        """Two at random, of which the shorter queue is good enough for a request without an image."""
        names = [name for name in self._names if name not in avoided] if avoided else self._names
        return [random.sample(names, min(2, len(names)))]

    def _in_order(self, key: int, avoided: Sequence[str]) -> list[list[str]]:
        order = [name for name in self._order(key % SLOTS) if name not in avoided]
        if not order:
            return self._any_two(avoided)
        if (self._queue(order[0]) or 0) < min(SPARE, self._capacity):
            return [[name] for name in order]
        return self._bounded(order, avoided)

    def _bounded(self, order: Sequence[str], avoided: Sequence[str]) -> list[list[str]]:
        """``order``, with those last that have too much to do."""
        queues = {name: self._queue(name) or 0 for name in order}
        limit = min(SPARE + FACTOR * sum(queues.values()) / len(order), self._capacity)
        free = [[name] for name in order if queues[name] < limit]
        busy = [[name] for name in sorted(order, key=queues.__getitem__) if queues[name] >= limit]
        return [*(free or self._any_two(avoided)), *busy]

    def _order(self, slot: int) -> list[str]:
        """Rendezvous hashing: each slot has its own order of the replicas; others that come or go do not change it."""
        if slot not in self._orders:
            salt = slot.to_bytes(2)
            self._orders[slot] = heapq.nlargest(RANKS, self._names, key=lambda name: _number(salt + name.encode()))
        return self._orders[slot]


class Underway:
    """Requests on their way to a replica. Serve counts them when the replica has taken them; of a burst about one
    image, all would go to the same replica before. One that is given up on its way is forgotten with its route."""

    def __init__(self) -> None:
        self._targets: WeakKeyDictionary[Route, str] = WeakKeyDictionary()
        self._counts: Counter[str] = Counter()

    def set_out(self, route: Route, rank: Sequence[str]) -> None:
        """It is sent to the replica of ``rank``, where that is only one."""
        self.arrived(route)
        if len(rank) == 1:
            self._targets[route] = rank[0]
            self._counts[rank[0]] += 1

    def arrived(self, route: Route) -> None:
        """A replica has taken it."""
        if (name := self._targets.pop(route, None)) is not None:
            self._counts[name] -= 1

    def to(self, name: str) -> int:
        """How many are on their way to a replica."""
        if self._counts.total() != len(self._targets):
            self._counts = Counter(self._targets.values())
        return self._counts[name]


def image_key(request: Request) -> int | None:
    """A number for the request's first image, the same in all processes; None without an image.

    Of several images the first decides: whoever sends it again, alone or with others, finds at least that one.
    """
    image = request.images[0] if request.images else request.image
    return None if image is None else _number(sampled(image))


def sampled(image: bytes) -> bytes:
    """The image if it is short, else evenly spaced parts of it, and its length."""
    size = len(image)
    if size <= SAMPLES * SAMPLE_BYTES:
        return image
    stride = (size - SAMPLE_BYTES) // (SAMPLES - 1)
    parts = [image[start : start + SAMPLE_BYTES] for start in range(0, stride * SAMPLES, stride)]
    return b"".join((*parts, size.to_bytes(8)))


def _number(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest())
