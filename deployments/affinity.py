"""Which replica gets a request: the one that has seen its image, as long as it has not much more to do than others.

The choice alone, of names; ``deployments.routing`` makes it for Ray Serve. Imports no Ray and asks nobody: all that it
knows of a replica is its name and the length of its queue as far as this process has heard of it.
"""

from __future__ import annotations

import heapq
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b

from vlm.origin import Origin
from vlm.types import Request

SAMPLES = 16
SAMPLE_BYTES = 256
"""Of a longer image, so many parts of that size are hashed, with its length: 4 KiB, whatever its size. Two images that
differ between them alone meet the same replica, which is harmless."""

SPARE = 8
"""Requests that a replica may hold before it is compared with the others: they are one batch."""

FACTOR = 1.5
"""How far above the mean of all replicas a queue may be before an image goes elsewhere."""

RANKS = 8
"""Replicas in an image's own order that are considered; if each of them has too much to do, any other will do."""

REMEMBERED = 4096
"""Requests whose replicas are remembered for their next attempt: more than a router has in hand at once."""

SHUNNED_S = 1.0
"""For so long nobody's image goes first to a replica that has just been lost, or has refused because it stops. Serve
notices either within that time; until then such a replica has the shortest queue of all."""

_FINAL = frozenset(("lost", "closed"))


class Affinity:
    """Ranks replicas for one request after the other. Every router process makes the same choice for an image."""

    def __init__(
        self,
        capacity: int,
        queue: Callable[[str], int | None],
        clock: Callable[[], float] = time.monotonic,
        sample: Callable[[Sequence[str], int], list[str]] = random.sample,
    ) -> None:
        """``capacity``: requests that a replica takes. ``queue``: the length of one's queue; None if it is unknown."""
        self._capacity = capacity
        self._queue = queue
        self._clock = clock
        self._sample = sample
        self._seeds: dict[str, int] = {}
        self._tried: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._shunned: dict[str, float] = {}

    def ranks(self, request: object, names: Sequence[str]) -> list[list[str]]:
        """The replicas that may have the request, best first; among those of one rank, the shortest queue decides.

        Args:
            request: A :class:`~vlm.types.Request`, or anything else that replicas are asked.
            names: All replicas, at least one.
        """
        origin = request.origin if isinstance(request, Request) else None
        avoided = self._avoided(origin)
        willing = [name for name in names if name not in avoided] if avoided else names
        rest = [name for name in names if name in avoided] if avoided else []
        key = image_key(request) if isinstance(request, Request) else None
        ranks = self._least_of_two(willing) if key is None else self._in_order(key, willing)
        return [*ranks, rest] if rest else ranks

    def routed(self, request: object, name: str) -> None:
        """A replica has taken the request."""
        if isinstance(request, Request) and (origin := request.origin) is not None:
            before = () if origin.trouble is None else self._tried.get(origin.request_id, ())
            self._tried[origin.request_id] = (*before, name)
            self._tried.move_to_end(origin.request_id)
            if len(self._tried) > REMEMBERED:
                self._tried.popitem(last=False)

    def keep_only(self, names: Sequence[str]) -> None:
        """These are all replicas from now on; forget the others."""
        self._seeds = {name: _number(name.encode()) for name in names}
        self._shunned = {name: until for name, until in self._shunned.items() if name in self._seeds}

    def _avoided(self, origin: Origin | None) -> frozenset[str]:
        """Replicas that come last: where this request has had trouble, and where others have just now."""
        tried: tuple[str, ...] = ()
        if origin is not None and origin.trouble is not None:
            tried = self._tried.get(origin.request_id, ())
            if tried and origin.trouble in _FINAL:
                self._shunned[tried[-1]] = self._clock() + SHUNNED_S
        if self._shunned:
            now = self._clock()
            self._shunned = {name: until for name, until in self._shunned.items() if until > now}
        return frozenset((*tried, *self._shunned)) if tried or self._shunned else _NONE

    def _least_of_two(self, names: Sequence[str]) -> list[list[str]]:
        return [list(names) if len(names) <= 2 else self._sample(names, 2)] if names else []

    def _in_order(self, key: int, names: Sequence[str]) -> list[list[str]]:
        """Rendezvous hashing: each image has its own order of the replicas; others that come or go do not change it."""
        seeds = self._seeds
        scored = [(_mixed(key ^ (seeds.get(name) or _number(name.encode()))), name) for name in names]
        order = [name for _, name in heapq.nlargest(RANKS, scored)]
        if not order or (self._queue(order[0]) or 0) < min(SPARE, self._capacity):
            return [[name] for name in order]
        return self._bounded(order, names)

    def _bounded(self, order: Sequence[str], names: Sequence[str]) -> list[list[str]]:
        """``order``, with those last that have too much to do."""
        total = sum(self._queue(name) or 0 for name in names)
        limit = min(max(SPARE, FACTOR * (total + 1) / len(names)), self._capacity)
        queues = {name: self._queue(name) or 0 for name in order}
        free = [[name] for name in order if queues[name] < limit]
        busy = [[name] for name in sorted(order, key=queues.__getitem__) if queues[name] >= limit]
        return [*(free or self._least_of_two(names)), *busy]


_NONE: frozenset[str] = frozenset()


def image_key(request: Request) -> int | None:
    """A number for the request's first image, the same in all processes; None without an image."""
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


def _mixed(number: int) -> int:
    """Each bit of the result depends on every bit of ``number`` (64 of them): the last step of MurmurHash3."""
    number = ((number ^ (number >> 33)) * 0xFF51AFD7ED558CCD) & _64_BITS
    number = ((number ^ (number >> 33)) * 0xC4CEB9FE1A85EC53) & _64_BITS
    return number ^ (number >> 33)


_64_BITS = 2**64 - 1
