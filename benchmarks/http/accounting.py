"""Which process does what, and the CPU time and memory that each part of a system takes.

Our processes and Ray's say in their command lines what they are; of a peer, see ``call_this_process``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks import processes

ROUTER, REPLICA, DECODING, PROXY, CONTROLLER, REST = "router", "replica", "decoding", "proxy", "controller", "rest"
PARTS = (ROUTER, REPLICA, DECODING, PROXY, CONTROLLER, REST)
"""The parts of a system, in the order of the tables."""

TITLES: Sequence[tuple[str, str]] = (
    ("ray::ServeReplica:router:", ROUTER),
    ("ray::ServeReplica:", REPLICA),
    ("ray::ProxyActor", PROXY),
    ("ray::ServeController", CONTROLLER),
    ("vlm.decoding.child", DECODING),
)
"""What a command line contains, and which part its process then is; the first that fits."""


def part_of(title: str, name: str = "") -> str:
    """The part of a system that a process is, by its command line and by the name that it has given itself."""
    return next((part for words, part in TITLES if words in title), name if name in PARTS else REST)


@dataclass(slots=True)
class Used:
    """CPU seconds by part, and the sum of all processes' memory (PSS), filled in when the time that is counted ends.

    Pages of libraries that other systems have mapped too count for each of them in part.
    """

    cpu_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    memory_mib: float = 0.0


@contextmanager
def counting(root: int) -> Iterator[Used]:
    """Count what the processes from ``root`` on use until the end of the block.

    A process that starts meanwhile counts from its beginning. One that ends counts as :data:`REST`, once another one of
    the tree has waited for it: what it was is known no more.
    """
    used = Used()
    before = _seconds(root)
    yield used
    after = _seconds(root)
    for process, seconds in after.items():
        part = part_of(processes.title(process), processes.name(process))
        used.cpu_s[part] += seconds.own - before.get(process, NONE).own
    if (ended := _ended(before, after)) > 0:
        used.cpu_s[REST] += ended
    used.memory_mib = sum(map(processes.proportional_mib, after))


@dataclass(frozen=True, slots=True)
class Seconds:
    """CPU time of a process, and of those below it that have ended."""

    own: float
    reaped: float


NONE = Seconds(0.0, 0.0)


def _seconds(root: int) -> Mapping[int, Seconds]:
    return {one: Seconds(processes.cpu_seconds(one), processes.reaped_seconds(one)) for one in processes.tree(root)}


def _ended(before: Mapping[int, Seconds], after: Mapping[int, Seconds]) -> float:
    """What the processes used that have ended since: those who waited for them have it now, with what was before."""
    new = sum(seconds.reaped - before.get(process, NONE).reaped for process, seconds in after.items())
    return new - sum(one.own + one.reaped for process, one in before.items() if process not in after)
