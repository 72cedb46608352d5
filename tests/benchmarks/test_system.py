"""The benchmark of a running system counts what it measures, and nothing of its warm-up."""

from __future__ import annotations

import asyncio
import json
from functools import partial

import httpx
import pytest

from benchmarks import system


class Clock:
    """Stands in for ``time``."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


def test_rates_and_latencies_are_those_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two answers of the warm-up takes ten seconds, each of the others half a second."""
    clock, sent = Clock(), list[int]()

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/chat/completions"
        sent.append(json.loads(request.content)["number"])
        clock.now += 10 if len(sent) <= 2 else 0.5
        return httpx.Response(200)

    monkeypatch.setattr(system, "time", clock)
    monkeypatch.setattr(httpx, "AsyncClient", partial(httpx.AsyncClient, transport=httpx.MockTransport(answer)))
    bodies = [{"number": number} for number in range(6)]
    rate, latencies = asyncio.run(system._load("http://127.0.0.1:1", bodies, 2))
    assert sent == list(range(6))
    assert rate == pytest.approx(2)
    assert len(latencies) == 4
    assert min(latencies) >= 500


def test_an_answer_that_is_an_error_ends_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(503))
    monkeypatch.setattr(httpx, "AsyncClient", partial(httpx.AsyncClient, transport=transport))
    with pytest.raises(httpx.HTTPStatusError):
        asyncio.run(system._load("http://127.0.0.1:1", [{}, {}], 1))
