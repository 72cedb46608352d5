"""The points of the curves are walked along in rounds, and written as tables and figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.growth import __main__ as command
from benchmarks.growth import curves, page
from benchmarks.growth.curves import CLIENTS, REPLICAS, SCALES, SIZES, TOKENS, Point, Question
from benchmarks.growth.page import Growth
from benchmarks.http.plan import WARM_UP_S
from benchmarks.http.report import Cell, Machine
from benchmarks.http.servers import Server
from benchmarks.http.statistics import Times
from benchmarks.http.turns import Turn
from router.chat.request import parse_chat
from router.config import RouterConfig

MACHINE = Machine("today", "a CPU", 2, 24.0, "3.11", {}, [0.0, 0.0])
CELL = Cell(
    "blip-large", "ours", 32, [90.0, 110.0, 100.0], Times(1, 2, 3), Times(1, 2, 3), 0.0,
    {"replica": 7.0, "router": 2.0}, 0.1, 900.0, 0, 10,
)  # fmt: skip
POINTS = [Point(CLIENTS, 1.0, CELL), Point(CLIENTS, 32.0, CELL), Point(REPLICAS, 2.0, replace(CELL, model="kosmos-2"))]
GROWTH = Growth(MACHINE, {"usual": 32}, POINTS)


class Noted:
    """Stands in for a system, and notes its turns."""

    def __init__(self, asked: list[tuple[int, float]]) -> None:
        self._asked = asked

    def turn(self, clients: int, seconds: float) -> Turn:
        self._asked.append((clients, seconds))
        return Turn(float(len(self._asked)), [0.1], [0.1], 1.0, {}, 0.0, 1.0, 1, 0)


def test_a_curve_is_walked_along_in_every_round() -> None:
    asked: list[tuple[int, float]] = []
    system: Any = Noted(asked)
    scale = replace(SCALES["tiny"], rounds=2, seconds=0.5)
    questions = [Question(CLIENTS, float(clients), system, clients) for clients in (1, 2)]
    points = list(curves.walk("blip-large", questions, scale, lambda _line: None))
    assert asked == [(1, WARM_UP_S), (2, WARM_UP_S), (1, 0.5), (2, 0.5), (1, 0.5), (2, 0.5)]
    assert [(one.x, one.cell.clients, list(one.cell.rates)) for one in points] == [(1, 1, [3, 5]), (2, 2, [4, 6])]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(curves, "prepare", lambda _model, _plan, size: (None, ["text"], [size]))
    made = object.__new__(Server)
    made.port, made.process = 8000, 1
    return made


def test_each_curve_lets_one_thing_grow(server: Server) -> None:
    scale = SCALES["full"]
    clients = curves._by_clients("blip-large", scale, server)
    assert [one.clients for one in clients] == [one.x for one in clients] == list(scale.clients)
    sizes = curves._by_size("blip-large", scale, server)
    assert [list(one.system.images) for one in sizes] == [[size] for size in scale.sizes]  # type: ignore[comparison-overlap]  # of the fixture
    assert {one.curve for one in sizes} == {SIZES}
    assert {one.clients for one in sizes} == {scale.usual}


@pytest.mark.parametrize("model", ["blip-large", "florence-2-base", "kosmos-2"])
def test_answers_of_a_length_never_end_by_themselves(model: str, server: Server) -> None:
    questions = curves._by_tokens(model, SCALES["tiny"], server)
    assert [(one.curve, one.x) for one in questions] == [(TOKENS, 2), (TOKENS, 4)]
    for one in questions:
        assert one.system.expected is None
        parse_chat(one.system.format.body, RouterConfig())
        sent = json.loads(one.system.format.body)
        assert (sent["max_tokens"], sent["logit_bias"]) == (one.x, {"2": -100})


def test_a_run_survives_its_file(tmp_path: Path) -> None:
    (tmp_path / "growth.json").write_text(GROWTH.to_json(), "utf-8")
    assert page.read(tmp_path / "growth.json") == GROWTH
    (tmp_path / "other.json").write_text('{"schema": 1}', "utf-8")
    with pytest.raises(SystemExit, match=r"other\.json"):
        page.read(tmp_path / "other.json")


def test_figures_have_a_line_for_each_model() -> None:
    drawn = {one.file: one for one in page.figures(GROWTH)}
    assert set(drawn) == {"growth-clients.svg", "growth-replicas.svg", "growth-p95.svg"}
    (line,) = drawn["growth-clients.svg"].lines
    assert (line.label, line.x, line.y) == ("blip-large", [1, 32], [100, 100])
    assert [line.label for line in drawn["growth-replicas.svg"].lines] == ["kosmos-2"]


def test_a_run_is_drawn_and_put_into_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(command, "draw", lambda _figures, folder, _python: drawn.append(folder))
    monkeypatch.setattr(command, "interpreter", lambda: Path("python"))
    (tmp_path / "growth.json").write_text(GROWTH.to_json(), "utf-8")
    text = tmp_path / "docs" / "page.md"
    text.parent.mkdir()
    text.write_text("<!-- growth: begin -->\n<!-- growth: end -->", "utf-8")
    plots = tmp_path / "docs" / "plots"
    files = ["--read", str(tmp_path / "growth.json"), "--markdown", str(text), "--plots", str(plots)]
    assert command.main(files) == 0
    assert drawn == [plots]
    assert "](plots/growth-clients.svg)" in text.read_text("utf-8")
    assert "| blip-large | 1 | 100.0 | 1 | 2 | 3 | 9.00 | 7.00 | 0.00 | 2.00 | 900 |" in text.read_text("utf-8")
