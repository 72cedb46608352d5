"""Dollars for 1,000 images, on numbers that can be checked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.cost import __main__ as cost
from benchmarks.cost.tasks import ON_GPU, TASKS, OnGpu
from benchmarks.http.report import Cell, Machine, Report
from benchmarks.http.statistics import Times

PRICES = cost.Prices(gpu_hour=3.6, core_hour=0.036, load=1.0, images={"blip-large": 0.094})
TIMES = Times(1, 1, 1)
MACHINE = Machine("today", "a CPU", 2, 24.0, "3.11", {}, [0.0, 0.0])


def cell(system: str, clients: int, rate: float) -> Cell:
    return Cell("blip-large", system, clients, [rate], TIMES, TIMES, 0.0, {}, 0.0, 0.0, 0, 1)


REPORT = Report(MACHINE, {}, {}, [cell("ours", 1, 10), cell("ours", 32, 100), cell("LitServe", 32, 50)])


@pytest.mark.parametrize(("rate", "load", "wanted"), [(1, 1.0, 1.0), (10, 1.0, 0.1), (10, 0.5, 0.2)])
def test_a_thousand_images(rate: float, load: float, wanted: float) -> None:
    """At 3.60 dollars an hour, a second costs a tenth of a cent."""
    assert cost.dollars(rate, 3.6, load) == pytest.approx(wanted)


def test_each_token_more_is_a_row_of_a_step() -> None:
    """A step of 64 rows takes 6.4 ms, so a row takes 0.1 ms; 20 tokens and the image take 10 ms of the device."""
    model = OnGpu(rate=100.0, step_ms=6.4)
    assert model.rate_of(20) == pytest.approx(100)
    assert model.rate_of(120) == pytest.approx(50)
    assert model.rate_of(10) == pytest.approx(1 / 0.009)


@pytest.mark.parametrize("model", ON_GPU)
def test_no_answer_is_so_short_that_it_takes_no_time(model: str) -> None:
    rates = [ON_GPU[model].rate_of(tokens) for tokens in sorted(TASKS[model].values())]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] <= rates[0] < 2 * ON_GPU[model].rate


def test_what_was_computed_is_marked() -> None:
    rows = list(cost.gpu_rows(PRICES, ON_GPU))
    assert {row.source for row in rows if row.tokens == 20} == {"measured"}
    assert {row.source for row in rows if row.tokens != 20} == {"computed"}
    assert {row.model for row in rows} == set(TASKS) == set(ON_GPU)
    assert {row.list_price for row in rows if row.model == "blip-large"} == {0.094}


def test_a_machine_costs_all_its_cores_where_a_system_is_fastest() -> None:
    ours, litserve = cost.core_rows(PRICES, REPORT)
    assert (ours.clients, ours.rate) == (32, 100)
    assert ours.dollars == pytest.approx(1000 / 100 * 2 * 0.036 / 3600)
    assert litserve.dollars == pytest.approx(2 * ours.dollars)


def test_list_prices_are_those_of_the_service() -> None:
    assert cost.list_prices() == {
        "blip-large": 0.094,
        "florence-2-base": 0.094,
        "kosmos-2": 0.626,
        "moondream-2": 0.626,
    }


def test_tables_go_into_a_page_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "http.json").write_text(REPORT.to_json(), "utf-8")
    page = tmp_path / "page.md"
    page.write_text("<!-- cost: begin -->\n<!-- cost: end -->", "utf-8")
    files = ["--read", str(tmp_path / "http.json"), "--markdown", str(page), "--folder", str(tmp_path / "out")]
    assert cost.main(["--gpu-hour", "3.6", "--rate", "blip-large=1", *files]) == 0
    assert "| blip-large | caption | 20 | 1.0 | measured | 1.0000 | 0.094 | 1063.8 |" in page.read_text("utf-8")
    assert "| blip-large | ours | 32 | 100.0 |" in page.read_text("utf-8")
    content = json.loads((tmp_path / "out" / "cost.json").read_text("utf-8"))
    assert content["gpu"][0]["dollars"] == pytest.approx(1.0)
    assert content["prices"]["gpu_hour"] == 3.6


@pytest.mark.parametrize("wrong", [["--gpu-hour", "0"], ["--load", "2"], ["--rate", "nothing=3"], ["--rate", "3"]])
def test_what_makes_no_sense_is_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        cost.main(wrong)
