"""Turns: one system under load at a time, in rounds, so that a machine whose speed drifts treats all of them alike."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.http.accounting import PARTS, REPLICA, Used, counting
from benchmarks.http.client import Answered, Sent
from benchmarks.http.direct import Direct
from benchmarks.http.images import Images
from benchmarks.http.load import Load, arriving, closed
from benchmarks.http.plan import BATCHES, SETTLE_S, WAKE_TRIES
from benchmarks.http.report import Cell, Step
from benchmarks.http.servers import Server, alone
from benchmarks.http.statistics import Times, goodput, poisson_times, times
from benchmarks.http.systems import DIRECT, Format

NO_TIMES = Times(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one system has done in one turn, in seconds and MiB.

    Attributes:
        rate: Requests a second.
        totals, firsts: Times of the answers that counted.
        counted_s: For how long they did.
        cpu_s: Of all its processes by part, from the first request to the last answer.
        client_cpu_s: Of the client.
        answers: All answers, those that did not count included.
        differ: Of these, those with another text than transformers gives.
    """

    rate: float
    totals: Sequence[float]
    firsts: Sequence[float]
    counted_s: float
    cpu_s: Mapping[str, float]
    client_cpu_s: float
    memory_mib: float
    answers: int
    differ: int


class Contender(Protocol):
    """Something that takes turns."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def turn(self, clients: int, seconds: float) -> Turn | None:
        """Take one; None if it has nothing to show at this number of clients."""


@dataclass(frozen=True, slots=True)
class Served:
    """A system behind HTTP.

    Attributes:
        root: The root of its processes, if their CPU time is to be counted.
        expected: The right text for each image; None if there is none to compare with.
        held: The servers that are held still during its turn.
    """

    name: str
    port: int
    root: int | None
    format: Format
    images: Images
    expected: Sequence[str] | None
    streaming: bool = False
    server: Server | None = None
    held: Sequence[Server] = ()

    def turn(self, clients: int, seconds: float) -> Turn:
        """Under the load of so many clients.

        Raises:
            SystemExit: An answer is not 200.
        """
        with self._counting() as used:
            load = asyncio.run(closed(self.port, self._requests(), clients, seconds, streaming=self.streaming))
        differ = sum(self._differs(one) for one in load.answers)
        counted = load.counted
        counted_s = max(load.ended - load.began, 1e-9)
        return Turn(
            rate=len(counted) / counted_s,
            totals=[one.done - one.asked for one in counted],
            firsts=[one.first - one.asked for one in counted],
            counted_s=counted_s,
            cpu_s=used.cpu_s,
            client_cpu_s=load.client_cpu_s,
            memory_mib=used.memory_mib,
            answers=len(load.answers),
            differ=differ,
        )

    def arrivals(self, rate: float, seconds: float, seed: int) -> Load:
        """Under requests that arrive at random; answers of any status."""
        due = poisson_times(rate, seconds, seed) or [0.0]
        with self._counting():
            return asyncio.run(arriving(self.port, self._requests(), due, streaming=self.streaming))

    def wake(self) -> None:
        """Return when it answers again after it was held still, however often a connection within it has timed out."""
        for _ in range(WAKE_TRIES):
            time.sleep(SETTLE_S)
            if asyncio.run(arriving(self.port, self._requests(), [0.0])).answers[0].status == 200:
                return

    def _requests(self) -> Iterator[Sent]:
        return self.format.requests(self.images, self.port)

    @contextmanager
    def _counting(self) -> Iterator[Used]:
        """Hold the others still, and count what the processes use."""
        with ExitStack() as ending:
            ending.enter_context(alone(self.server, self.held))
            if self.held:
                self.wake()
            yield Used() if self.root is None else ending.enter_context(counting(self.root))

    def _differs(self, answered: Answered) -> bool:
        if answered.status != 200:
            words = answered.body[:500].decode("utf-8", "replace")
            raise SystemExit(f"error: {self.name} has answered with {answered.status}: {words}")
        text = self.format.text(answered.content)
        return self.expected is not None and text != self.expected[answered.number]


@dataclass(frozen=True, slots=True)
class Batches:
    """transformers without a server: its batches are as large as the others have clients."""

    direct: Direct
    held: Sequence[Server] = ()
    name: str = DIRECT

    def turn(self, clients: int, seconds: float) -> Turn | None:
        """Fixed batches, one after the other."""
        if clients not in BATCHES:
            return None
        with alone(None, self.held), counting(self.direct.process) as used:
            done = self.direct.measure(clients, seconds)
        images, took = int(done["images"]), done["seconds"]
        cpu = {REPLICA: done["cpu_seconds"]}
        return Turn(images / took, (), (), took, cpu, 0.0, used.memory_mib, images, 0)


@dataclass(slots=True)
class Turns:
    """The turns of one system at one number of clients."""

    done: list[Turn] = field(default_factory=list)

    def cell(self, model: str, system: str, clients: int, objective_s: float) -> Cell:
        """All of them together."""
        totals = [one for turn in self.done for one in turn.totals]
        answers = sum(turn.answers for turn in self.done)
        cpu: defaultdict[str, float] = defaultdict(float)
        for turn in self.done:
            for part, seconds in turn.cpu_s.items():
                cpu[part] += seconds
        return Cell(
            model=model,
            system=system,
            clients=clients,
            rates=[round(turn.rate, 2) for turn in self.done],
            times=times(totals),
            first=times([one for turn in self.done for one in turn.firsts]),
            goodput=round(goodput(totals, objective_s, sum(turn.counted_s for turn in self.done)), 2),
            cpu_ms={part: round(1000 * cpu[part] / answers, 3) for part in PARTS if cpu[part]},
            client_cpu_ms=round(1000 * sum(turn.client_cpu_s for turn in self.done) / answers, 3),
            memory_mib=round(max(turn.memory_mib for turn in self.done), 1),
            differ=sum(turn.differ for turn in self.done),
            answers=answers,
        )


def take_turns(
    contenders: Sequence[Contender], model: str, clients: int, *, rounds: int, seconds: float, objective_s: float
) -> list[Cell]:
    """One cell for each contender. Every other round goes backwards, so that none always comes after the same one."""
    turns = {one.name: Turns() for one in contenders}
    for number in range(rounds):
        for one in contenders if number % 2 == 0 else contenders[::-1]:
            if (turn := one.turn(clients, seconds)) is not None:
                turns[one.name].done.append(turn)
    return [each.cell(model, name, clients, objective_s) for name, each in turns.items() if each.done]


def step(system: Served, model: str, rate: float, *, seconds: float, objective_s: float, seed: int) -> Step:
    """What becomes of requests that arrive at random."""
    load = system.arrivals(rate, seconds, seed)
    good = [one for one in load.answers if one.status == 200]
    totals = [one.done - one.asked for one in good]
    of_all = [*totals, *[float("inf")] * (len(load.answers) - len(good))]
    return Step(
        model=model,
        system=system.name,
        offered=round(rate, 2),
        requests=len(load.answers),
        times=times(totals),
        first=times([one.first - one.asked for one in good]),
        goodput=round(goodput(totals, objective_s, max(seconds, 1e-9)), 2),
        failed=len(load.answers) - len(good),
        holds=times(of_all).p95 <= 1000 * objective_s,
    )
