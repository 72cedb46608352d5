"""The choice of a replica, without Ray."""

from __future__ import annotations

from collections import Counter

from deployments.affinity import FACTOR, SHUNNED_S, SPARE, Affinity, image_key
from vlm.origin import Origin
from vlm.types import Request

NAMES = [f"replica{index}" for index in range(4)]
IMAGES = [index.to_bytes(2) * 40_000 for index in range(800)]


class World:
    """Replicas with queues, and a clock."""

    def __init__(self, capacity: int = 100) -> None:
        self.queues: dict[str, int | None] = {}
        self.now = 0.0
        self.affinity = Affinity(capacity, self.queues.get, lambda: self.now, lambda names, k: list(names[:k]))

    def first(self, image: bytes | None, names: list[str] = NAMES, origin: Origin | None = None) -> str:
        return self.affinity.ranks(Request(image, origin=origin), names)[0][0]


def test_images_are_spread_evenly_and_each_keeps_its_replica_whatever_the_process() -> None:
    homes = [World().first(image) for image in IMAGES]
    assert homes == [World().first(image, NAMES[::-1]) for image in IMAGES]
    assert all(140 < count < 260 for count in Counter(homes).values())


def test_one_nth_of_the_images_moves_when_a_replica_comes_and_all_of_them_to_it() -> None:
    world = World()
    moved = [
        world.first(image, [*NAMES, "new"])
        for image in IMAGES
        if world.first(image) != world.first(image, [*NAMES, "new"])
    ]
    assert set(moved) == {"new"}
    assert 100 < len(moved) < 220


def test_a_replica_with_a_few_requests_keeps_its_images() -> None:
    world = World()
    home = world.first(IMAGES[0])
    world.queues = {home: SPARE - 1}
    world.affinity = Affinity(100, world.queues.get)
    assert world.first(IMAGES[0]) == home


def test_a_queue_far_above_the_mean_is_passed_over_for_the_next_in_the_images_order() -> None:
    world = World()
    order = [rank[0] for rank in world.affinity.ranks(Request(IMAGES[0]), NAMES)]
    world.queues.update(dict.fromkeys(NAMES, 10))
    assert world.first(IMAGES[0]) == order[0]
    world.queues[order[0]] = int(10 * FACTOR * 2)
    assert world.first(IMAGES[0]) == order[1]
    assert [rank[0] for rank in world.affinity.ranks(Request(IMAGES[0]), NAMES)] == [*order[1:], order[0]]


def test_a_full_replica_is_passed_over_even_if_all_are_as_busy() -> None:
    world = World(capacity=20)
    order = [rank[0] for rank in world.affinity.ranks(Request(IMAGES[0]), NAMES)]
    world.queues.update(dict.fromkeys(NAMES, 19))
    world.queues[order[0]] = 20
    assert world.first(IMAGES[0]) == order[1]


def test_another_attempt_goes_elsewhere_and_only_a_lost_or_closed_replica_is_shunned_by_others() -> None:
    for trouble, shunned in (("full", False), ("lost", True), ("closed", True)):
        world = World()
        home = world.first(IMAGES[0], origin=Origin("a"))
        world.affinity.routed(Request(IMAGES[0], origin=Origin("a")), home)
        assert world.first(IMAGES[0], origin=Origin("a", trouble)) != home
        assert (world.first(IMAGES[0], origin=Origin("b")) != home) is shunned
        world.now += SHUNNED_S
        assert world.first(IMAGES[0], origin=Origin("b")) == home


def test_a_request_without_an_image_may_go_to_either_of_two() -> None:
    assert World().affinity.ranks(Request(None), NAMES) == [NAMES[:2]]
    assert World().affinity.ranks(None, NAMES) == [NAMES[:2]]


def test_the_key_is_that_of_the_first_image() -> None:
    assert image_key(Request(IMAGES[1])) == image_key(Request(None, images=(IMAGES[1], IMAGES[2])))
    assert image_key(Request(None)) is None
