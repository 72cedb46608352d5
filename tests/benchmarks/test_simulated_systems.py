"""Routers, loads, whole systems, and what is computed from them; by seed, so that every run gives the same numbers."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import pytest
import yaml

from benchmarks.simulate import calibrate, fleets, known
from benchmarks.simulate.__main__ import LENGTHS, main
from benchmarks.simulate.calibrate import CLIENTS, REPLICAS, Measured
from benchmarks.simulate.controller_costs import Controller, Line, probed
from benchmarks.simulate.cores import Cores
from benchmarks.simulate.costs import Costs, Limits
from benchmarks.simulate.events import Events
from benchmarks.simulate.fleets import Stop
from benchmarks.simulate.load import Load, poisson, trace
from benchmarks.simulate.page import WANTED, Compared, comparison
from benchmarks.simulate.replica import Replica
from benchmarks.simulate.requests import Outcome, Tally
from benchmarks.simulate.router import Router
from benchmarks.simulate.system import Node, Run, fleet, one_machine

ROOT = Path(__file__).parents[2]
COSTS = Costs(
    client=0, router=0.001, router_wake=0, decode=0.003, replica=0.002, prefill=0.002, prefill_each=0.001, step=0.0015,
    step_row=0.0001, tokens=20,
)  # fmt: skip


def flood(replicas: list[Replica], events: Events, limits: Limits, requests: int) -> tuple[Tally, Router]:
    """All requests at one moment."""
    tally = Tally()
    router = Router(COSTS, limits, Cores(events, 2), replicas, random.Random(0))
    Load(events, tally, COSTS.tokens, router.take).at([0.0] * requests)
    return tally, router


def several(events: Events, limits: Limits, *costs: Costs) -> list[Replica]:
    return [Replica(number, one, limits, Cores(events, 2), None) for number, one in enumerate(costs)]


# A router


@pytest.mark.parametrize(
    ("limits", "answered"),
    [
        (Limits(places_per_replica=10), 20),
        (Limits(max_requests=7), 7),
        (Limits(max_batch=4, max_waiting=1), 5),
    ],
)
def test_what_a_router_does_not_let_in_is_refused(limits: Limits, answered: int) -> None:
    events = Events()
    tally, router = flood(several(events, limits, COSTS), events, limits, 50)
    events.run(60)
    assert tally.outcomes == {Outcome.ANSWERED: answered, Outcome.REFUSED: 50 - answered}
    assert router.held == tally.under_way == 0


def test_a_router_sends_nothing_to_a_dead_replica() -> None:
    events, limits = Events(), Limits()
    dead, alive = several(events, limits, COSTS, COSTS)
    dead.die()
    tally, _ = flood([dead, alive], events, limits, 20)
    events.run(60)
    assert tally.outcomes == {Outcome.ANSWERED: 20}


def test_a_router_avoids_a_slow_replica() -> None:
    events, limits, tally = Events(), Limits(), Tally()
    slow, quick = several(events, limits, replace(COSTS, step=0.01, prefill=0.01), COSTS)
    router = Router(COSTS, limits, Cores(events, 2), [slow, quick], random.Random(0))
    Load(events, tally, COSTS.tokens, router.take).at(takewhile(lambda at: at < 30, poisson(100, random.Random(1))))
    events.run(60)
    assert tally.outcomes[Outcome.ANSWERED] == tally.sent
    assert slow.rows < quick.rows / 2


# Loads


def test_arrivals_at_random_have_their_rate() -> None:
    assert len(list(takewhile(lambda at: at < 100, poisson(50, random.Random(0))))) == pytest.approx(5000, rel=0.03)


def test_a_trace_is_followed_second_by_second() -> None:
    times = list(trace([400, 0, 100], random.Random(0)))
    assert sorted(times) == times
    assert [sum(int(at) == second for at in times) for second in range(3)] == pytest.approx([400, 0, 100], rel=0.15)


# Whole systems


def test_a_closed_system_has_its_clients_in_it() -> None:
    ran = one_machine(COSTS, Limits(), cores=2, replicas=2, clients=8, seconds=60)
    assert ran.rate * ran.p50 == pytest.approx(8, rel=0.1)
    assert ran.refused == 0


def test_replicas_on_nodes_of_their_own_do_as_much_more_as_there_are_more() -> None:
    rates = [
        fleet(COSTS, Limits(), Node(4, 1), poisson(one * 60, random.Random(0)), replicas=one, routers=1, seconds=30)
        for one in (1, 4)
    ]
    assert [one.rate for one in rates] == pytest.approx([60, 240], rel=0.05)
    assert rates[1].p99 < 2 * rates[0].p99


def test_one_router_stops_a_fleet_whose_replicas_could_do_more() -> None:
    one = replace(known.on_cores(COSTS, 0.04), costs=replace(COSTS, router=0.01))
    rows = list(fleets.rows(one, Controller.read(), [4], at_most=1))
    assert rows[0].stop is Stop.ROUTERS
    assert rows[0].rate < 1 / 0.01
    (more,) = fleets.rows(one, Controller.read(), [4])
    assert more.stop is Stop.REPLICAS
    assert more.routers > 1
    assert more.rate > 1.5 * rows[0].rate
    assert more.dollars < rows[0].dollars


def test_the_first_share_that_holds_is_what_is_sustained() -> None:
    def run(rate: float) -> Run:
        return Run(rate, 0.1, 0.2, 0.5 if rate < 85 else 2.0, 0.0, {}, 1.0)

    share, ran = fleets.sustained(run, 100)
    assert (share, ran.rate) == (0.8, 80)


# The controller


def test_a_line_through_points_of_a_line() -> None:
    assert Line.through([1, 2, 4], [3, 5, 9]) == Line(1.0, 2.0)


def test_the_controller_has_more_to_do_with_more_replicas_and_routers() -> None:
    measured = Controller.read()
    assert measured.cores(1, 1) < measured.cores(100, 1) < measured.cores(100, 10)
    at = fleets.controller_breaks(100, 0.0017, measured)
    assert measured.cores(at - 2, fleets.routers_for(at - 2, 100, 0.0017)) <= 1
    assert measured.cores(at + 2, fleets.routers_for(at + 2, 100, 0.0017)) > 1


def test_a_busy_router_knows_the_queues_and_an_idle_one_does_not() -> None:
    assert probed(500, 100) < 1e-6
    assert probed(1, 1000) > 0.9


# The calibration


def test_service_times_that_made_the_measurements_are_found_again() -> None:
    hidden = replace(COSTS, background=0.0, client=0.0002)

    def error(tried: Costs) -> float:
        return abs(tried.step - hidden.step) + abs(tried.prefill - hidden.prefill)

    found = calibrate.search(replace(hidden, step=0.001, prefill=0.003), ("step", "prefill"), error)
    assert (found.step, found.prefill) == pytest.approx((hidden.step, hidden.prefill), rel=0.05)


def test_the_points_of_a_growth_run_are_read() -> None:
    cell = {"model": "kosmos-2", "rates": [10.0, 20.0], "times": {"p50": 100.0, "p95": 200.0, "p99": 300.0},
            "cpu_ms": {"router": 2.0, "replica": 6.0, "decoding": 3.0}, "client_cpu_ms": 0.2}  # fmt: skip
    growth = {"settings": {"usual": 32}, "points": [{"curve": "replicas", "x": 3.0, "cell": cell},
                                                    {"curve": "megapixels", "x": 12.0, "cell": cell}]}  # fmt: skip
    ((model, point),) = calibrate.measured(growth, LENGTHS)
    assert model == "kosmos-2"
    assert (point.replicas, point.clients, point.tokens, point.rate) == (3, 32, LENGTHS["kosmos-2"], 15.0)
    assert point.cpu["replica"] == 0.006


def compared(model: str, replicas: int) -> Compared:
    calibration = calibrate.read()
    point = next(one for one in calibration.points[model] if one.curve == REPLICAS and one.replicas == replicas)
    return Compared(model, point, calibrate.run(calibration.costs[model], point, 600))


@pytest.mark.parametrize("model", sorted(LENGTHS))
@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
def test_rates_with_one_to_four_replicas_are_those_that_were_measured(model: str, replicas: int) -> None:
    assert abs(compared(model, replicas).error) < WANTED + 0.03  # a shorter run than that of the page


def test_a_comparison_names_what_is_outside() -> None:
    point = Measured(CLIENTS, 8, 20, 1, 100.0, 0.1, 0.1, 0.1, 0.0, 0.0, {})
    words = comparison(calibrate.read(), [Compared("kosmos-2", point, Run(120.0, 0.1, 0.1, 0.1, 0, {}, 1.0))])
    assert "kosmos-2 with 8 clients, of 1" in words


# The settings and the command


def test_settings_are_those_of_the_deployed_config() -> None:
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text("utf-8"))
    router, model = (next(one for one in config["applications"] if one["name"] == name)
                     for name in ("router", known.MODEL))  # fmt: skip
    engine, limits = model["args"]["engine"], known.on_gpus(COSTS, 1.0).limits
    for name in ("max_batch", "max_waiting", "max_prefill", "decode_processes"):
        assert engine[name] == getattr(limits, name)
    assert router["args"].get("places_per_replica", engine["max_batch"]) == limits.places_per_replica
    assert router["deployments"][0]["autoscaling_config"]["max_replicas"] == fleets.SHIPPED_ROUTERS


def test_a_trace_through_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rates").write_text("20\n20\n20\n", "utf-8")
    main(["--trace", str(tmp_path / "rates"), "--fleet", "cores", "--sizes", "2", "--routers", "1"])
    assert json.loads(capsys.readouterr().out)["rate"] == pytest.approx(20, rel=0.3)
