"""The choice of a replica, without Ray."""

from __future__ import annotations

import pickle
from collections import Counter

from deployments.affinity import FACTOR, SHUNNED_S, SPARE, Affinity, Underway, image_key
from vlm.route import Route
from vlm.types import Request

NAMES = [f"replica{index}" for index in range(4)]
IMAGES = [index.to_bytes(2) * 40_000 for index in range(800)]


class World:
    """Replicas with queues, and a clock."""

    def __init__(self, names: list[str] = NAMES, capacity: int = 100) -> None:
        self.queues: dict[str, int | None] = {}
        self.now = 0.0
        self.affinity = Affinity(self.queues.get, lambda: self.now)
        self.affinity.set_replicas(names, capacity)

    def order(self, image: bytes | None, route: Route | None = None) -> list[str]:
        return [rank[0] for rank in self.affinity.ranks(Request(image, route=route))]

    def first(self, image: bytes, route: Route | None = None) -> str:
        return self.order(image, route)[0]

    def homes(self) -> list[str]:
        return [self.first(image) for image in IMAGES]


def test_images_are_spread_evenly_and_each_keeps_its_replica_whatever_the_process() -> None:
    homes = World().homes()
    assert homes == World(NAMES[::-1]).homes()
    assert all(140 < count < 260 for count in Counter(homes).values())


def test_one_nth_of_the_images_moves_when_a_replica_comes_and_all_of_them_to_it() -> None:
    world = World()
    before = world.homes()
    world.affinity.set_replicas([*NAMES, "new"], 100)
    moved = [home for was, home in zip(before, world.homes(), strict=True) if home != was]
    assert set(moved) == {"new"}
    assert 100 < len(moved) < 220


def test_only_the_images_of_a_replica_that_goes_move_and_to_all_the_others() -> None:
    world = World()
    before = world.homes()
    world.affinity.set_replicas(NAMES[1:], 100)
    moved = [(was, home) for was, home in zip(before, world.homes(), strict=True) if home != was]
    assert {was for was, _ in moved} == {NAMES[0]}
    assert {home for _, home in moved} == {*NAMES[1:]}


def test_a_replica_with_a_few_requests_keeps_its_images() -> None:
    world = World()
    home = world.first(IMAGES[0])
    world.queues[home] = SPARE - 1
    assert world.first(IMAGES[0]) == home


def test_a_queue_far_above_the_mean_is_passed_over_for_the_next_in_the_images_order() -> None:
    world = World()
    order = world.order(IMAGES[0])
    world.queues.update(dict.fromkeys(NAMES, 10))
    assert world.first(IMAGES[0]) == order[0]
    world.queues[order[0]] = int(10 * FACTOR * 2) + SPARE
    assert world.order(IMAGES[0]) == [*order[1:], order[0]]


def test_one_image_alone_never_makes_a_queue_much_longer_than_the_others() -> None:
    world = World()
    world.queues.update(dict.fromkeys(NAMES, 0))
    for _ in range(200):
        world.queues[world.first(IMAGES[0])] += 1  # type: ignore[operator]
        lengths = [length or 0 for length in world.queues.values()]
        assert max(lengths) <= SPARE + FACTOR * sum(lengths) / len(NAMES) + 1


def test_a_full_replica_is_passed_over_even_if_all_are_as_busy() -> None:
    world = World(capacity=20)
    order = world.order(IMAGES[0])
    world.queues.update(dict.fromkeys(NAMES, 19))
    world.queues[order[0]] = 20
    assert world.first(IMAGES[0]) == order[1]


def test_any_others_are_asked_when_all_in_an_images_order_are_full() -> None:
    names = [f"replica{index}" for index in range(20)]
    world = World(names, capacity=10)
    order = world.order(IMAGES[0])
    assert len(order) < len(names)
    world.queues.update(dict.fromkeys(order, 10))
    first, *rest = world.affinity.ranks(Request(IMAGES[0]))
    assert len(first) == 2
    assert sorted(name for rank in rest for name in rank) == sorted(order)


def test_another_attempt_goes_where_the_request_has_not_been_yet() -> None:
    world = World()
    order = world.order(IMAGES[0])
    assert world.order(IMAGES[0], Route([order[0], order[2]])) == [order[1], order[3], min(order[0], order[2])]
    assert world.first(IMAGES[0], Route([*order])) in order  # all have failed: better one of them than none


def test_only_a_replica_that_is_gone_is_avoided_by_others_and_not_for_long() -> None:
    for gone in (False, True):
        world = World()
        home = world.first(IMAGES[0])
        assert world.first(IMAGES[0], Route([home], gone=gone)) != home
        assert (world.first(IMAGES[0]) != home) is gone
        world.now += SHUNNED_S
        assert world.first(IMAGES[0]) == home


def test_requests_without_an_image_go_to_two_at_random_which_are_not_to_be_avoided() -> None:
    world = World()
    drawn = {name for _ in range(200) for name in world.affinity.ranks(None)[0]}
    assert drawn == {*NAMES}
    assert len(world.affinity.ranks(Request(None))[0]) == 2
    first, last = world.affinity.ranks(Request(None, route=Route(NAMES[:3])))
    assert (first, last) == (NAMES[3:], NAMES[:3])


def test_a_replica_alone_gets_everything() -> None:
    world = World(["only"])
    world.queues["only"] = 1000
    assert world.affinity.ranks(Request(IMAGES[0])) == [["only"]]
    assert world.first(IMAGES[0], Route(["only"], gone=True)) == "only"


def test_the_key_is_that_of_the_first_image() -> None:
    assert image_key(Request(IMAGES[1])) == image_key(Request(None, images=(IMAGES[1], IMAGES[2])))
    assert image_key(Request(None)) is None


def test_a_route_stays_in_its_process_and_changes_no_request() -> None:
    request = Request(b"image", route=Route(["a"], gone=True))
    assert request == Request(b"image")
    crossed = pickle.loads(pickle.dumps(request)).route
    assert (crossed.taken, crossed.gone) == ([], False)


def test_requests_on_their_way_count_until_a_replica_has_taken_them_or_they_are_given_up() -> None:
    underway = Underway()
    routes = [Route() for _ in range(5)]
    for route in routes:
        underway.set_out(route, ["a"])
    underway.set_out(Route(), ["a", "b"])  # one of two, which nobody knows yet
    assert (underway.to("a"), underway.to("b")) == (5, 0)
    underway.set_out(routes[0], ["b"])  # its first choice was full
    underway.arrived(routes[1])
    underway.arrived(routes[1])
    assert (underway.to("a"), underway.to("b")) == (3, 1)
    del route, routes[2:]
    assert (underway.to("a"), underway.to("b")) == (0, 1)
