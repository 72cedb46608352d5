"""A node that does not start is started again; no Ray."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.chaos.nodes import STARTS, started


class Node:
    """One that starts, or does not, or is interrupted."""

    def __init__(self, starts: bool | BaseException) -> None:
        self._starts = starts
        self.killed = False

    def is_started(self) -> bool:
        if isinstance(self._starts, BaseException):
            raise self._starts
        return self._starts

    def failure(self) -> str:
        return "the agent has not opened its ports"

    def kill(self) -> None:
        self.killed = True


def nodes(*starts: bool | BaseException) -> tuple[list[Node], Callable[[], Node]]:
    made: list[Node] = []
    left = iter(starts)

    def make() -> Node:
        made.append(Node(next(left)))
        return made[-1]

    return made, make


def test_another_attempt_follows_one_that_failed_and_nothing_is_left_of_that() -> None:
    made, make = nodes(False, False, True)
    assert started(make) is made[2]
    assert [one.killed for one in made] == [True, True, False]


def test_the_last_attempt_says_why() -> None:
    made, make = nodes(*[False] * STARTS)
    with pytest.raises(SystemExit, match="the agent has not opened its ports"):
        started(make)
    assert all(one.killed for one in made)


def test_one_that_is_interrupted_is_ended() -> None:
    made, make = nodes(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        started(make)
    assert made[0].killed
