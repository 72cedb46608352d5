"""A report survives its file, and its tables and figures show what it has."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.http import __main__ as command
from benchmarks.http import report
from benchmarks.http.figures import figures_of
from benchmarks.http.plan import SCALES
from benchmarks.http.report import Cell, Report, Step
from benchmarks.http.statistics import Times
from benchmarks.http.tables import page_section, put

MACHINE = report.Machine("2026-01-02 03:04", "a CPU", 2, 24.0, "3.11.7", {"torch": "2"}, [0.1, 1.9])
CELL = Cell(
    "blip-large", "ours", 32, [100.0, 120.0, 110.0], Times(250, 300, 400), Times(250, 300, 400), 110.0,
    {"router": 2.0, "replica": 7.0}, 0.15, 900.0, 0, 300,
)  # fmt: skip
STEP = Step("blip-large", "ours", 100.0, 400, Times(100, 200, 300), Times(100, 200, 300), 100.0, 0, holds=True)
REPORT = Report(
    MACHINE,
    {"tokens": 20, "objective_s": 1.0, "hold": True},
    {"blip-large": {"ours": 0.05}},
    [
        CELL,
        replace(CELL, system="ours, streamed", first=Times(42, 43, 44)),
        replace(CELL, system="LitServe", rates=[50.0, 40.0, 44.0], cpu_ms={"replica": 9.0}, differ=2),
        replace(CELL, system="transformers", rates=[10.0, 10.0, 11.0], client_cpu_ms=0.0),
    ],
    [STEP, replace(STEP, offered=120.0, holds=False, times=Times(900, 1500, 1600), goodput=70.0)],
)


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    (tmp_path / "http.json").write_text(REPORT.to_json(), "utf-8")
    assert report.read(tmp_path / "http.json") == REPORT


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 1, "machine": {}}', '{"schema": 0}'])
def test_what_is_no_report_is_refused_with_its_name(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content, "utf-8")
    with pytest.raises(SystemExit, match=r"a\.json"):
        report.read(tmp_path / "a.json")


def test_the_file_has_these_fields() -> None:
    """Others read it: a change takes another :data:`report.SCHEMA`."""
    content = json.loads(REPORT.to_json())
    assert content["schema"] == 1
    assert set(content) == {"schema", "machine", "settings", "idle_cpu", "cells", "steps"}
    assert set(content["cells"][0]) == {
        "model", "system", "clients", "rates", "times", "first", "goodput", "cpu_ms", "client_cpu_ms", "memory_mib",
        "differ", "answers",
    }  # fmt: skip
    assert set(content["steps"][0]) == {
        "model", "system", "offered", "requests", "times", "first", "goodput", "failed", "holds",
    }  # fmt: skip


def test_this_machine() -> None:
    here = report.machine("today", 0.5)
    assert here.cores >= 1
    assert here.memory_gib > 0
    assert here.cpu
    assert set(here.packages) == {"torch", "transformers", "ray"}


def test_tables_have_ratios_of_rounds_and_say_what_differs() -> None:
    section = page_section(REPORT).replace("\n  ", " ")
    assert "| blip-large | 32 | 110.0 | 42 | 250 | 300 | 400 | 110.0 | 44.0 | **2.50** (2.00-3.00) |" in section
    assert "|  | 32 | LitServe | 9.00 |  | 9.00 |" in section
    assert "| blip-large | ours | 100 | 100 | 200 | 300 | 100.0 | 120 | 1500 | 70.0 | 0 of 400 |" in section
    assert "LitServe on blip-large at c = 32: 2 of 300" in section
    assert "held still" in section
    assert "ours 5.0 %" in section


def test_every_table_has_as_many_cells_in_each_row() -> None:
    lines = [line for line in page_section(REPORT).splitlines() if line.startswith("|")]
    tables: list[set[int]] = []
    for line in lines:
        if line.startswith("|  |") and "---" not in line and ("c" in line or "system" in line) and "32" not in line:
            tables.append(set())
        tables[-1].add(line.count("|"))
    assert [len(widths) for widths in tables] == [1, 1, 1]


def test_tables_replace_what_stood_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- http: begin -->\nold\n<!-- http: end -->\nafter\n", "utf-8")
    for text in ("new", "newer"):
        put(page, "http", text)
    assert page.read_text("utf-8") == "before\n<!-- http: begin -->\n\nnewer\n\n<!-- http: end -->\nafter\n"
    with pytest.raises(SystemExit, match="growth: begin"):
        put(page, "growth", "")


def test_figures_have_a_line_for_each_system() -> None:
    closed, arriving = figures_of(REPORT)
    assert [line.label for line in closed.lines] == ["ours", "ours, streamed", "LitServe", "transformers"]
    assert (closed.lines[0].x, closed.lines[0].y) == ([32], [110.0])
    assert (arriving.lines[0].x, arriving.lines[0].y) == ([100.0, 120.0], [100.0, 70.0])


def test_a_report_is_read_into_a_page(tmp_path: Path) -> None:
    (tmp_path / "http.json").write_text(REPORT.to_json(), "utf-8")
    page = tmp_path / "page.md"
    page.write_text("<!-- http: begin -->\n<!-- http: end -->", "utf-8")
    assert command.main(["--read", str(tmp_path / "http.json"), "--markdown", str(page)]) == 0
    assert "**2.50**" in page.read_text("utf-8")


def test_what_was_chosen_replaces_what_the_scale_has() -> None:
    options = command._parser().parse_args(["--scale", "quick", "--clients", "4,5", "--objective", "0.5", "--no-hold"])
    plan = command.plan_of(options)
    assert plan == replace(SCALES["quick"], clients=(4, 5), objective_s=0.5, hold=False)


def test_lines_are_printed_as_they_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert "110.0/s" in command.cell_line(CELL)
    assert command.step_line(replace(STEP, holds=False)).endswith("(breaks)")
    command.note("busy")
    assert capsys.readouterr().err == "busy\n"
