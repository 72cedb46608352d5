"""What became of requests in each phase, as a table and as JSON. Computes from records, and knows no cluster."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.chaos.load import Record
from benchmarks.http.report import Machine
from benchmarks.http.statistics import quantile

LATE_S = 0.2
"""Between the moment at which a process is killed and the one that is written down."""
RETRY = re.compile(r"tries a request again in [^:]*: (lost|closed|full|not ready)")
BALANCER = "retried: by the balancer"
LOGGED = {"resumed": "goes on with a stream in attempt", "given up": "gives a request up"}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done to the cluster.

    Attributes:
        at: On the clock of ``time.monotonic``.
        recovered_s: How long until everything ran as it should.
        ends_connections: Whether processes ended to which clients, or the proxy for them, had connections.
    """

    what: str
    at: float
    recovered_s: float
    ends_connections: bool = False


@dataclass(slots=True)
class Phase:
    """A part of the run.

    Attributes:
        began, ended: On the clock of ``time.monotonic``.
        logged: What the routers logged of requests with trouble, by what it was.
        wrong: What was not as it should be, beside the requests.
    """

    name: str
    began: float
    ended: float = 0.0
    events: list[Event] = field(default_factory=list)
    logged: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one phase. A request belongs to the phase in which it began.

    Attributes:
        refused: 503 of the router, by code.
        failed: Other requests without an answer, or with an error.
        cut: Streams without an end.
        differ: Answers other than the one that is known.
        died: Requests and streams whose connection ended with the router or the proxy that had it; in no other count.
        p50_ms, p99_ms, longest_ms: Of those that were answered.
    """

    requests: int
    streamed: int
    answered: int
    refused: Mapping[str, int]
    failed: int
    cut: int
    differ: int
    died: int
    p50_ms: float
    p99_ms: float
    longest_ms: float

    @property
    def lost(self) -> int:
        """How many were not answered as they would have been alone."""
        return self.requests - self.answered


def counts_of(records: Sequence[Record], events: Sequence[Event]) -> Counts:
    """Count; ``events`` are those of the whole run."""
    died = [one for one in records if died_with_its_router(one, events)]
    others = [one for one in records if one not in died]
    ends = Counter(one.outcome for one in others)
    refused = Counter(one.detail for one in others if one.outcome == "refused" and one.status == 503 and one.by_router)
    taken = [1000 * (one.ended - one.began) for one in records if one.outcome == "answered"] or [0.0]
    return Counts(
        requests=len(records),
        streamed=sum(one.streams for one in records),
        answered=ends["answered"],
        refused=dict(refused),
        failed=ends["refused"] + ends["unanswered"] - refused.total(),
        cut=ends["cut"],
        differ=ends["differs"],
        died=len(died),
        p50_ms=quantile(taken, 0.5),
        p99_ms=quantile(taken, 0.99),
        longest_ms=max(taken),
    )


def died_with_its_router(record: Record, events: Sequence[Event]) -> bool:
    """Whether the request was under way when a router or a proxy was killed, and nobody has said how it ended."""
    return not record.by_router and any(
        one.ends_connections and record.began - LATE_S <= one.at <= record.ended + LATE_S for one in events
    )


def logged(log: str) -> Counter[str]:
    """What routers logged of requests with trouble."""
    found = Counter(f"retried: {kind}" for kind in RETRY.findall(log))
    found.update({name: log.count(text) for name, text in LOGGED.items()})
    return +found


@dataclass(frozen=True, slots=True)
class Run:
    """All phases with the requests of each."""

    machine: Machine
    settings: Mapping[str, object]
    phases: Sequence[Phase]
    records: Sequence[Record]

    def of(self, phase: Phase) -> list[Record]:
        """The requests that began in a phase."""
        return [one for one in self.records if phase.began <= one.began < phase.ended]

    def counts(self, phase: Phase) -> Counts:
        """Those of one phase."""
        return counts_of(self.of(phase), [event for one in self.phases for event in one.events])

    def is_whole(self) -> bool:
        """Whether nothing was lost, and everything was as it should be."""
        return not any(self.counts(one).lost or one.wrong for one in self.phases)

    def to_json(self) -> str:
        """Everything but the requests that were answered."""
        phases = [
            {
                "name": one.name,
                "seconds": round(one.ended - one.began, 1),
                "counts": asdict(self.counts(one)),
                "logged": dict(one.logged),
                "wrong": one.wrong,
                "events": [asdict(event) | {"at": round(event.at - one.began, 2)} for event in one.events],
                "not_answered": [
                    asdict(record) | {"began": record.began - one.began, "ended": record.ended - one.began}
                    for record in self.of(one)
                    if record.outcome != "answered"
                ],
            }
            for one in self.phases
        ]
        found = {"machine": asdict(self.machine), "settings": self.settings, "phases": phases}
        return json.dumps(found, indent=1, default=str)


HEAD = ("", "s", "requests", "streamed", "failed", "cut", "differ", "refused", "died", "tried again", "resumed",
        "p50 ms", "p99", "longest", "recovered after s")  # fmt: skip


def table(run: Run) -> Iterator[str]:
    """A row for each phase, in Markdown."""
    yield f"| {' | '.join(HEAD)} |"
    yield f"|---|{'--:|' * (len(HEAD) - 1)}"
    for phase in run.phases:
        yield f"| {' | '.join(_row(phase, run.counts(phase)))} |"


def _row(phase: Phase, counts: Counts) -> Iterator[str]:
    retried = sum(count for name, count in phase.logged.items() if name.startswith("retried"))
    recovered = sorted(one.recovered_s for one in phase.events)
    refused = " ".join(f"{count} {code}" for code, count in counts.refused.items())
    yield phase.name
    yield f"{phase.ended - phase.began:.0f}"
    yield from map(str, (counts.requests, counts.streamed, counts.failed, counts.cut, counts.differ))
    yield refused or "0"
    yield from map(str, (counts.died, retried, phase.logged["resumed"]))
    yield from (f"{value:.0f}" for value in (counts.p50_ms, counts.p99_ms, counts.longest_ms))
    if len(recovered) > 2:
        yield f"{quantile(recovered, 0.5):.1f}, at most {recovered[-1]:.1f}"
    else:
        yield ", ".join(f"{one.recovered_s:.1f} ({one.what})" for one in phase.events)
