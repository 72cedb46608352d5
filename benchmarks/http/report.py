"""What a run of the benchmark has measured, as it is written to a JSON file and read from it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.http.statistics import Times

PACKAGES = ("torch", "transformers", "ray")
SCHEMA = 1
"""The version of the file's format."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and when it was measured.

    Attributes:
        load: The load averages of one minute when the run began and when it ended.
    """

    date: str
    cpu: str
    cores: int
    memory_gib: float
    python: str
    packages: Mapping[str, str]
    load: Sequence[float]


@dataclass(frozen=True, slots=True)
class Cell:
    """One system at one number of clients.

    Attributes:
        rates: Requests a second in each round; systems have taken turns in the rounds.
        times: Of whole answers, in all rounds; 0 where there is no server.
        first: Of the first text, where the answer streams; else as ``times``.
        goodput: Answers a second within the objective.
        cpu_ms: CPU time of a request, by part of the system.
        client_cpu_ms: What the client took for one.
        memory_mib: The largest sum of all processes' memory (PSS) at the end of a round.
        differ: Answers whose text differs from what transformers says about the image.
        answers: Number of answers, all of which were compared.
    """

    model: str
    system: str
    clients: int
    rates: Sequence[float]
    times: Times
    first: Times
    goodput: float
    cpu_ms: Mapping[str, float]
    client_cpu_ms: float
    memory_mib: float
    differ: int
    answers: int


@dataclass(frozen=True, slots=True)
class Step:
    """One system while requests arrive at random.

    Attributes:
        offered: Requests a second that arrive.
        goodput: Answers a second within the objective.
        failed: Requests that were not answered with 200.
        holds: Whether 95 of 100 requests were answered within the objective.
    """

    model: str
    system: str
    offered: float
    requests: int
    times: Times
    first: Times
    goodput: float
    failed: int
    holds: bool


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run.

    Attributes:
        settings: What was chosen on the command line.
        idle_cpu: The share of a core that each system takes while nobody asks it anything, by model and system.
    """

    machine: Machine
    settings: Mapping[str, Any]
    idle_cpu: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    cells: Sequence[Cell] = ()
    steps: Sequence[Step] = ()

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1)

    def cell(self, model: str, system: str, clients: int) -> Cell | None:
        """What was measured of a system at this number of clients."""
        wanted = (model, system, clients)
        return next((one for one in self.cells if (one.model, one.system, one.clients) == wanted), None)


def read(path: Path) -> Report:
    """The report in a file.

    Raises:
        SystemExit: It is not one, or of another version.
    """
    with open_report(path) as content:
        return Report(
            machine_of(content),
            content["settings"],
            content["idle_cpu"],
            [cell_of(one) for one in content["cells"]],
            [Step(**_with_times(one)) for one in content["steps"]],
        )


@contextmanager
def open_report(path: Path) -> Iterator[dict[str, Any]]:
    """The content of a file, read until the end of the block.

    Raises:
        SystemExit: It cannot be read, has another version, or lacks something that is read from it.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["schema"] != SCHEMA:
            raise SystemExit(f"error: {path} has version {content['schema']} of the format; measure again.")
        yield content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"error: {path} is not what it should be: {type(error).__name__}: {error}") from error


def machine_of(content: Mapping[str, Any]) -> Machine:
    """The machine of a report."""
    return Machine(**content["machine"])


def cell_of(content: dict[str, Any]) -> Cell:
    """A cell of a report."""
    return Cell(**_with_times(content))


def _with_times(one: dict[str, Any]) -> dict[str, Any]:
    return one | {name: Times(**one[name]) for name in ("times", "first")}


def machine(date: str, began: float) -> Machine:
    """This machine; ``began`` is its load average when the run began."""
    return Machine(
        date=date,
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        python=platform.python_version(),
        packages={name: version(name) for name in PACKAGES},
        load=[round(began, 2), round(os.getloadavg()[0], 2)],
    )


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
