"""The parts of the simulation against queueing theory; by seed, so that every run gives the same numbers."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import factorial
from statistics import fmean

import pytest

from benchmarks.simulate import replica as simulated
from benchmarks.simulate.cores import Cores, Threads
from benchmarks.simulate.costs import Costs, Limits
from benchmarks.simulate.events import Events
from benchmarks.simulate.replica import Replica
from benchmarks.simulate.requests import Outcome, Request, Tally
from vlm.engine import scheduler

JOBS = 100_000
Draw = Callable[[], float]
COSTS = Costs(
    client=0, router=0, router_wake=0, decode=0.003, replica=0.002, prefill=0.002, prefill_each=0.001, step=0.0015,
    step_row=0.0001, tokens=20,
)  # fmt: skip


def sojourns(rate: float, work: Draw, do: Callable[[Events, float, Callable[[], None]], None], seed: int) -> float:
    """Mean time that jobs are in the system which arrive at random."""
    events, rng, times = Events(), random.Random(seed), list[float]()

    def arrive() -> None:
        began = events.now
        do(events, work(), lambda: times.append(events.now - began))
        if len(times) < JOBS:
            events.after(rng.expovariate(rate), arrive)

    arrive()
    while len(times) < JOBS:
        events.run(events.now + 1000)
    return fmean(times)


def queue(threads: int) -> Callable[[Events, float, Callable[[], None]], None]:
    """First come, first served, with a core for each thread."""
    made: dict[Events, Threads] = {}

    def do(events: Events, work: float, then: Callable[[], None]) -> None:
        made.setdefault(events, Threads(Cores(events, threads), threads)).do(work, then)

    return do


def exponential(seed: int) -> Draw:
    rng = random.Random(seed)
    return lambda: rng.expovariate(1.0)


def erlang_c(servers: int, load: float) -> float:
    """The share of jobs that wait in an M/M/c queue."""
    last = load**servers / factorial(servers) * servers / (servers - load)
    return last / (sum(load**one / factorial(one) for one in range(servers)) + last)


def test_one_server_with_random_work() -> None:
    """M/M/1: 1 / (1 - 0.7) in the system."""
    assert sojourns(0.7, exponential(1), queue(1), 2) == pytest.approx(1 / 0.3, rel=0.05)


def test_one_server_with_constant_work() -> None:
    """M/D/1 waits half as long as M/M/1."""
    assert sojourns(0.7, lambda: 1.0, queue(1), 3) == pytest.approx(1 + 0.7 / (2 * 0.3), rel=0.04)


@pytest.mark.parametrize("servers", [2, 4])
def test_several_servers(servers: int) -> None:
    load = 0.8 * servers
    wanted = 1 + erlang_c(servers, load) / (servers - load)
    assert sojourns(load, exponential(4), queue(servers), 5) == pytest.approx(wanted, rel=0.05)


def test_shared_cores_depend_on_the_mean_alone() -> None:
    """M/G/1 with processor sharing: as M/M/1, whatever the work's distribution is."""
    made: dict[Events, Cores] = {}

    def do(events: Events, work: float, then: Callable[[], None]) -> None:
        made.setdefault(events, Cores(events, 1)).run(work, then)

    assert sojourns(0.7, lambda: 1.0, do, 6) == pytest.approx(1 / 0.3, rel=0.05)


def test_a_thread_gets_no_more_than_a_core_and_threads_share_them() -> None:
    events, ended = Events(), list[float]()
    cores = Cores(events, 2)
    for work in (1.0, 1.0, 2.0):
        cores.run(work, lambda: ended.append(events.now))
    events.run(10)
    assert ended == pytest.approx([1.5, 1.5, 2.5])  # 2/3 of a core each, then the last one alone


def test_what_wakes_a_thread_costs_more() -> None:
    events = Events()
    thread = Threads(Cores(events, 1), wake_s=0.5)
    for _ in range(2):
        thread.do(1.0, lambda: None)
    events.run(10)
    assert thread.work_s == 2.5


def test_a_machine_has_a_core() -> None:
    with pytest.raises(ValueError, match="needs a core"):
        Cores(Events(), 0)


# A replica


def closed(clients: int, seconds: float, costs: Costs = COSTS) -> tuple[Tally, Replica]:
    """A replica of two cores under clients that ask one question after the other, each about a new image."""
    events, tally = Events(), Tally()
    one = Replica(0, costs, Limits(), Cores(events, 2), None)

    def ended(request: Request, outcome: Outcome) -> None:
        tally.ended(request, outcome, events.now)
        send()

    def send() -> None:
        request = Request(events.now, tally.sent, costs.tokens, ended)
        tally.sent += 1
        one.take(request, lambda done: done.ended(done, Outcome.ANSWERED))

    for _ in range(clients):
        send()
    events.run(seconds)
    return tally, one


def test_a_request_alone_takes_the_sum_of_its_parts() -> None:
    tally, _ = closed(1, 0.5)
    steps = COSTS.tokens - 1  # the first token comes with the start
    wanted = COSTS.replica + COSTS.decode + COSTS.start(1, 0) + steps * COSTS.decode_step(1)
    assert tally.times == pytest.approx([wanted] * len(tally.times))


@pytest.mark.parametrize("clients", [1, 8, 32])
def test_requests_are_conserved_and_obey_littles_law(clients: int) -> None:
    tally, one = closed(clients, 60.0)
    assert tally.under_way == one.load == clients
    assert tally.outcomes[Outcome.ANSWERED] == len(tally.times)
    assert len(tally.times) / 60 * fmean(tally.times) == pytest.approx(clients, rel=0.02)


def test_a_batch_answers_more_than_one_request_at_a_time() -> None:
    rates = [len(closed(clients, 20.0)[0].times) for clients in (1, 8, 32)]
    assert rates[0] < rates[1] < rates[2]


def test_a_seen_image_is_not_decoded_again() -> None:
    events, times = Events(), list[float]()
    one = Replica(0, COSTS, Limits(), Cores(events, 2), None)
    for _ in range(2):
        sent = Request(events.now, 7, 1, lambda _request, _outcome: None)
        one.take(sent, lambda done: times.append(events.now - done.sent))
        events.run(events.now + 1)
    saved = COSTS.decode + (1 - COSTS.seen_share) * COSTS.prefill_each
    assert times[0] - times[1] == pytest.approx(saved)


def test_a_dead_replica_answers_nothing() -> None:
    events, answered = Events(), list[Request]()
    one = Replica(0, COSTS, Limits(), Cores(events, 2), None)
    sent = Request(0.0, 0, 20, lambda _request, _outcome: None)
    one.take(sent, answered.append)
    events.run(0.01)
    assert one.die() == [sent]
    events.run(1.0)
    assert not answered
    assert not one.alive


def test_it_gathers_as_the_scheduler_does() -> None:
    assert (simulated.GATHERED, simulated.PATIENCE) == (scheduler.GATHERED, scheduler.PATIENCE)
