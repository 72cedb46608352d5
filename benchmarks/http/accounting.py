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
    """CPU seconds by part, and the largest sum of all processes' memory (PSS) that was seen.

    Filled in when the time that is counted ends.
    """

    cpu_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    memory_mib: float = 0.0


@contextmanager
def counting(root: int) -> Iterator[Used]:
    """Count what the processes from ``root`` on use until the end of the block.

    A process that starts meanwhile counts from its beginning; one that ends is lost.
    """
    used = Used()
    before = _cpu(root)
    yield used
    after = _cpu(root)
    for process, seconds in after.items():
        part = part_of(processes.title(process), processes.name(process))
        used.cpu_s[part] += seconds - before.get(process, 0.0)
    used.memory_mib = sum(map(processes.proportional_mib, after))


def _cpu(root: int) -> Mapping[int, float]:
    return {process: processes.cpu_seconds(process) for process in processes.tree(root)}
