"""What /proc says about processes: who is below whom, and the CPU time and memory of each. Linux only.

A process that has ended has no title, no children, no CPU time and no memory.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB of a process: with and without what it shares with Ray's object store."""

    resident: int
    own: int


def all_processes() -> list[int]:
    """Ids of all processes."""
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]


def tree(root: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = defaultdict(list)
    for process in all_processes():
        children[parent(process)].append(process)
    found = [root]
    for process in found:
        found += children[process]
    return found


def children_of(process: int) -> list[int]:
    """Those that it has started itself."""
    lists = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for one in lists for child in _text(one).split()]


def parent(process: int) -> int:
    """The id of the process above, or 0."""
    return int((_statistics(process) or ["", "0"])[1])


def title(process: int) -> str:
    """Its command line, or what it has put there."""
    return _read(process, "cmdline").replace("\0", " ")


def name(process: int) -> str:
    """What it calls itself in 15 bytes: its program, unless it has written something else to /proc/self/comm."""
    return _read(process, "comm").strip()


def is_alive(process: int) -> bool:
    """Whether it runs, or could."""
    return (_statistics(process) or ["Z"])[0] not in {"Z", "X"}


def cpu_seconds(process: int) -> float:
    """Time on a CPU since it began, in its own code and in the kernel."""
    fields = _statistics(process)
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND if fields else 0.0


def reaped_seconds(process: int) -> float:
    """The same of all processes below it that have ended, as far as it, or those between, have waited for them."""
    fields = _statistics(process)
    return (int(fields[13]) + int(fields[14])) / TICKS_A_SECOND if fields else 0.0


def memory(process: int) -> Memory:
    """Its resident memory, and the part of it that is the process's own."""
    fields = _fields(_read(process, "status"))
    return Memory(fields.get("VmRSS", 0) // 1024, fields.get("RssAnon", 0) // 1024)


def proportional_mib(process: int) -> float:
    """Its resident memory, where each page that n processes share counts 1/n (PSS): sums over a tree are right."""
    return _fields(_read(process, "smaps_rollup")).get("Pss", 0) / 1024


def _fields(lines: str) -> dict[str, int]:
    """The sizes in kB of a file of ``Name:  123 kB`` lines."""
    pairs = (line.split(":", 1) for line in lines.splitlines() if line.endswith(" kB"))
    return {name: int(size.split()[0]) for name, size in pairs}


def _statistics(process: int) -> list[str]:
    """The fields of /proc/PID/stat behind the program's name, which may have spaces and brackets itself."""
    return _read(process, "stat").rpartition(")")[2].split()


def _read(process: int, file: str) -> str:
    return _text(Path(f"/proc/{process}/{file}"))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:  # the process has ended
        return ""
