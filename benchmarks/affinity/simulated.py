"""Replicas as queues with caches, and the router's own choice between them: no clock, no Ray, no model.

A replica answers one request after the other, and takes longer for an image that it does not have. That it works in
batches is left out. The router knows every queue.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.affinity.report import Result, percentile
from benchmarks.affinity.traffic import image_bytes
from deployments.affinity import Affinity
from vlm.types import Request

HIT_S, MISS_S = 0.010, 0.030
"""Time of an answer about an image that is in the cache, and about another one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is simulated.

    Attributes:
        replicas: Their number.
        cached: Images that each of them keeps.
        requests: Requests for each of them, of which the second half is counted.
        rate: Requests a second for each of them.
        by_image: Whether images have replicas of their own, or requests go to the shorter of two queues.
    """

    replicas: int
    cached: int
    requests: int
    rate: float
    by_image: bool
    capacity: int = 320


class Replica:
    """A queue, and the images that were asked about last."""

    def __init__(self, cached: int) -> None:
        self.taken = 0
        self._cached = cached
        self._kept: OrderedDict[int, None] = OrderedDict()
        self._ends: deque[float] = deque()

    def waiting(self, now: float) -> int:
        """Requests that it has not answered."""
        while self._ends and self._ends[0] <= now:
            self._ends.popleft()
        return len(self._ends)

    def take(self, image: int, now: float) -> tuple[bool, float]:
        """Whether it has the image, and when it will have answered."""
        hit = image in self._kept
        self._kept[image] = None
        self._kept.move_to_end(image)
        if len(self._kept) > self._cached:
            self._kept.popitem(last=False)
        end = max(now, self._ends[-1] if self._ends else now) + (HIT_S if hit else MISS_S)
        self._ends.append(end)
        self.taken += 1
        return hit, end


def simulate(plan: Plan, images: Iterator[int], seed: int = 0) -> Result:
    """Requests at random times, one after the other."""
    rng = random.Random(seed)  # noqa: S311
    random.seed(seed)  # the choice of two draws from the module's generator
    now = 0.0
    replicas = {f"replica{index}": Replica(plan.cached) for index in range(plan.replicas)}
    affinity = Affinity(lambda name: replicas[name].waiting(now))
    affinity.set_replicas(list(replicas), plan.capacity)
    hits, seconds = 0, []
    count = plan.requests * plan.replicas
    for index in range(count):
        now += rng.expovariate(plan.rate * plan.replicas)
        if index == count // 2:
            before = {name: one.taken for name, one in replicas.items()}
        image = next(images)
        first = affinity.ranks(Request(image_bytes(image)) if plan.by_image else None)[0]
        chosen = replicas[min(first, key=lambda name: replicas[name].waiting(now))]
        hit, end = chosen.take(image, now)
        if index >= count // 2:
            hits += hit
            seconds.append(end - now)
    taken = [one.taken - before[name] for name, one in replicas.items()]
    return Result(
        plan.replicas,
        plan.by_image,
        hits / len(seconds),
        max(taken) * len(taken) / sum(taken),
        percentile(seconds, 0.5),
        percentile(seconds, 0.95),
    )
