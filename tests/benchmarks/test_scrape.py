"""The benchmarks of metrics and of abandoned streams, on a router without a network."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from benchmarks import abandoned, scrape
from router.app import create_app
from router.config import RouterConfig
from tests.router.world import FakeBackend


def test_a_line_has_the_series_of_every_model() -> None:
    models, series, *_times = scrape.line(2, scrapes=1).split()
    assert int(models) == 2
    assert int(series) > 100


def options(*more: str) -> list[str]:
    return ["--model", "blip-large", "--streams", "12", "--leave-s", "0.05", *more]


@pytest.mark.parametrize("answers", [True, False])
def test_streams_are_left_and_nothing_is_held(answers: bool, capsys: pytest.CaptureFixture[str]) -> None:
    backend = FakeBackend(pause_s=0.0 if answers else 30.0)
    transport = httpx2.ASGITransport(create_app(backend, RouterConfig()))
    ended = asyncio.run(abandoned.measure(abandoned.parser().parse_args(options()), transport))
    assert ended == 0
    assert "0 places held" in capsys.readouterr().out
    assert backend.running == 0
