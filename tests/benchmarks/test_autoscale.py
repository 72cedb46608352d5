"""The benchmark of autoscaling: its load, its model and what it says of a run."""

from __future__ import annotations

import asyncio
import json

import pytest

from benchmarks.autoscale.__main__ import MODEL, config_with, scaling_of
from benchmarks.autoscale.day import RUSH, Day
from benchmarks.autoscale.model import Sleep, SleepingReplica
from benchmarks.autoscale.report import Outcome, Record, is_good, outcome, table
from deployments.scaling_policy import HELD, QUEUE_S, mistakes
from tests.clock import run_clocked
from vlm.types import Request

DAY = Day(240.0, 30.0)
WHOLE, STREAMED = Request(b"image"), Request(b"image", stream=True)


def test_a_day_has_nights_a_rush_and_bursts() -> None:
    assert DAY.rate(0.0) == DAY.rate(DAY.at(23.5)) == 0.0
    assert DAY.rate(DAY.at(15)) == 30.0
    assert DAY.rate(DAY.at(RUSH + 0.01)) > 3 * DAY.rate(DAY.at(RUSH - 0.01))
    assert DAY.rate(DAY.at(5.1)) > 2 * DAY.rate(DAY.at(4.9))


def test_requests_come_as_often_as_the_curve_says() -> None:
    arrivals = DAY.arrivals(1)
    assert arrivals == DAY.arrivals(1) != DAY.arrivals(2)
    assert arrivals == sorted(arrivals)
    expected = sum(DAY.rate(second / 10) / 10 for second in range(2400))
    assert len(arrivals) == pytest.approx(expected, rel=0.1)
    assert arrivals[0] >= DAY.at(1)


def test_a_replica_takes_as_long_as_it_says() -> None:
    async def load() -> tuple[float, dict[str, float]]:
        replica, loop = SleepingReplica(Sleep(2, 10, service_s=0.4, start_s=0.0)), asyncio.get_running_loop()
        began = loop.time()
        answers = asyncio.gather(*(replica.answer(WHOLE) for _ in range(6)))
        await asyncio.sleep(0.1)
        said = await replica.record_autoscaling_stats()
        await answers
        return loop.time() - began, said

    seconds, said = run_clocked(load())
    assert seconds == pytest.approx(1.2)
    assert said[HELD] == 6
    assert said[QUEUE_S] == pytest.approx(1.0)  # a seventh would wait for five, two at a time


def test_a_full_replica_refuses_and_a_stream_says_who_answers_once() -> None:
    async def load() -> tuple[object, list[str]]:
        replica = SleepingReplica(Sleep(1, 0, start_s=0.0))
        running = asyncio.create_task(replica.answer(WHOLE))
        await asyncio.sleep(0)
        refused = (await replica.answer(WHOLE)).error
        await running
        return refused, [chunk.text async for chunk in replica.generate(STREAMED)]

    refused, texts = run_clocked(load())
    assert str(refused) == "Full."
    assert "".join(texts).startswith("replica ")
    assert sum(map(bool, texts)) == 1


@pytest.mark.parametrize(
    ("body", "streamed", "status", "found"),
    [
        (b'{"content": "replica 12"}', False, 200, (200, 12)),
        (b'data: {"content": "replica 12"}\n\ndata: [DONE]\n\n', True, 200, (200, 12)),
        (b'data: {"content": "replica 12"}\n\n', True, 200, (0, 12)),
        (b'data: {"error": {}}\n\ndata: [DONE]\n\n', True, 200, (0, 0)),
        (b'{"error": {}}', True, 503, (503, 0)),
    ],
)
def test_what_is_an_answer(body: bytes, streamed: bool, status: int, found: tuple[int, int]) -> None:
    one = outcome(100.0, 101.0, 102.5, status, body, streamed=streamed, retry=False)
    assert (one.status, one.replica) == found
    assert (one.asked, one.done, one.seconds) == (1.0, 2.5, 1.5)


def test_a_run_is_good_when_nothing_is_lost_or_late_and_it_ends_as_it_began() -> None:
    rush = DAY.at(RUSH)
    outcomes = [
        Outcome(rush - 9, rush - 5, 200, 7),
        Outcome(rush + 1, rush + 2, 200, 7),
        Outcome(rush + 1, 190.0, 200, 8),
    ]
    looks = [(0.0, 0), (rush - 9.0, 1), (rush - 0.5, 1), (rush + 1.5, 2), (195.0, 1), (200.0, 0)]
    record = Record(DAY, 300.0, outcomes, looks)
    assert is_good(record)
    figures = record.figures()
    assert figures["first_answer_from_zero_s"] == 4.0
    assert figures["replica_begun_after_the_rush_s"] == 1.5
    assert figures["extra_replica_answers_after_the_rush_s"] == 190.0 - rush
    assert figures["back_to_zero_s"] == 10.0
    assert json.loads(record.to_json())["figures"]["lost"] == 0
    for changed in (
        Record(DAY, 100.0, outcomes, looks),  # one is late
        Record(DAY, 300.0, [*outcomes, Outcome(1.0, 1.1, 503, 0)], looks),
        Record(DAY, 300.0, outcomes, looks[:-1]),
        Record(DAY, 300.0, outcomes, looks[1:]),
    ):
        assert not is_good(changed)


def test_the_table_has_an_hour_in_each_line() -> None:
    record = Record(DAY, 20.0, [Outcome(DAY.at(8.5), DAY.at(8.6), 503, 0)], [(DAY.at(8.5), 2)])
    lines = list(table(record, 8.0))
    assert lines[9].split() == ["8", "0.1", "0.0", "2-2", "0", "1.00", "1"]
    assert any(line.split()[-1] == "never" for line in lines)


def test_the_config_has_the_model_alone_and_nothing_that_stops_the_policy() -> None:
    sleep, scaling = Sleep(), scaling_of(3, 10.0)
    router, model = config_with(sleep, scaling)["applications"]
    assert (router["args"]["required_models"], model["name"]) == ([MODEL], MODEL)
    assert list(mistakes(scaling)) == []
