"""What became of a day: rows of a table, and the figures that must be 0."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from benchmarks.autoscale.day import RUSH, Day
from benchmarks.autoscale.model import REPLICA
from benchmarks.http.statistics import times

ROWS = 24
_REPLICA = re.compile(rf"{REPLICA}(\d+)".encode())


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request; times in seconds since the beginning of the day.

    Attributes:
        asked, done: When it should have been sent, and when its answer was complete.
        status: Its HTTP status; 0 for a broken connection, or a stream without an end.
        replica: The process that answered, 0 if none did.
        retry_after: Whether a refusal says when to come again.
    """

    asked: float
    done: float
    status: int
    replica: int
    retry_after: bool = False

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.done - self.asked


def outcome(
    began: float, asked: float, done: float, status: int, body: bytes, *, streamed: bool, retry: bool
) -> Outcome:
    """Of an answer; ``began`` is when the day did, on the same clock."""
    cut = streamed and status == 200 and (b"data: [DONE]" not in body or b'"error"' in body)
    found = _REPLICA.search(body)
    return Outcome(asked - began, done - began, 0 if cut else status, int(found[1]) if found else 0, retry)


@dataclass(slots=True)
class Record:
    """A whole run.

    Attributes:
        day: What was asked.
        deadline_s: In which an answer had to be complete.
        outcomes: Of all requests.
        processes: (seconds since the beginning, number of replicas' processes, those that start or end included).
    """

    day: Day
    deadline_s: float
    outcomes: list[Outcome] = field(default_factory=list)
    processes: list[tuple[float, int]] = field(default_factory=list)

    @property
    def answered(self) -> list[Outcome]:
        """Those with an answer."""
        return [one for one in self.outcomes if one.status == 200]

    @property
    def lost(self) -> list[Outcome]:
        """Those without an answer, whether refused, failed or cut."""
        return [one for one in self.outcomes if one.status != 200]

    @property
    def late(self) -> list[Outcome]:
        """Those whose answer came after the deadline."""
        return [one for one in self.answered if one.seconds > self.deadline_s]

    def between(self, begins: float, ends: float) -> list[int]:
        """How many processes there were at each look."""
        return [count for at, count in self.processes if begins <= at < ends]

    def figures(self) -> dict[str, Any]:
        """What there is to say in numbers; None where it did not happen."""
        rush = self.day.at(RUSH)
        before = {one.replica for one in self.answered if one.done <= rush}
        others = [one.done - rush for one in self.answered if one.done > rush and one.replica not in before]
        last = max((one.done for one in self.outcomes), default=0.0)
        night = max(self.between(rush - 2.0, rush), default=0)
        more = [at - rush for at, count in self.processes if at > rush and count > night]
        zero = [at - last for at, count in self.processes if at > last and count == 0]
        quantiles = times([one.seconds for one in self.answered])
        first = min(self.outcomes, key=lambda one: one.asked, default=None)
        return {
            "requests": len(self.outcomes),
            "lost": len(self.lost),
            "lost_by_status": {
                str(status): sum(one.status == status for one in self.lost) for status in self._failures
            },
            "over_their_deadline": len(self.late),
            "p50_ms": quantiles.p50,
            "p95_ms": quantiles.p95,
            "p99_ms": quantiles.p99,
            "longest_s": max((one.seconds for one in self.answered), default=0.0),
            "replicas_at_first": self.processes[0][1] if self.processes else None,
            "most_replicas": max((count for _, count in self.processes), default=0),
            "replica_seconds": self._replica_seconds(),
            "first_answer_from_zero_s": first.seconds if first else None,
            "replica_begun_after_the_rush_s": min(more, default=None),
            "extra_replica_answers_after_the_rush_s": min(others, default=None),
            "back_to_zero_s": min(zero, default=None),
        }

    @property
    def _failures(self) -> list[int]:
        return sorted({one.status for one in self.lost})

    def _replica_seconds(self) -> float:
        return sum(count * (until - since) for (since, count), (until, _) in pairwise(self.processes))

    def rows(self) -> Iterator[dict[str, float]]:
        """An hour of the day each."""
        for hour in range(ROWS):
            begins, ends = self.day.at(hour), self.day.at(hour + 1)
            asked = [one for one in self.outcomes if begins <= one.asked < ends]
            counts = self.between(begins, ends)
            yield {
                "hour": hour,
                "asked_per_s": len(asked) / (ends - begins),
                "replicas_least": min(counts, default=0),
                "replicas_most": max(counts, default=0),
                "answering": len({one.replica for one in asked} - {0}),
                "p95_s": times([one.seconds for one in asked]).p95 / 1000,
                "lost": sum(one.status != 200 for one in asked),
            }

    def to_json(self) -> str:
        """Everything, as text."""
        found = {"day": asdict(self.day), "figures": self.figures(), "hours": list(self.rows())}
        return json.dumps({**found, "processes": self.processes}, indent=1)


def table(record: Record, rate: float) -> Iterator[str]:
    """Lines of text; ``rate`` is what one replica can do."""
    yield " hour  asked/s  of one  replicas  answering   p95 s  lost"
    for row in record.rows():
        span = f"{row['replicas_least']:.0f}-{row['replicas_most']:.0f}"
        yield (
            f"{row['hour']:5.0f}  {row['asked_per_s']:7.1f}  {row['asked_per_s'] / rate:6.1f}  {span:>8}  "
            f"{row['answering']:9.0f}  {row['p95_s']:6.2f}  {row['lost']:4.0f}"
        )
    for name, value in record.figures().items():
        yield f"{name.replace('_', ' '):42} {shown(value)}"


def shown(value: object) -> str:
    """A figure as text."""
    if isinstance(value, float):
        return f"{value:.2f}"
    return "never" if value is None else str(value)


def is_good(record: Record) -> bool:
    """Whether nothing was lost or late, and there were no replicas before and after."""
    figures = record.figures()
    ends = (figures["replicas_at_first"], figures["back_to_zero_s"])
    return not record.lost and not record.late and ends[0] == 0 and ends[1] is not None
