"""The benchmark of traces measures three routers, and what it sends arrives."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks import trace_cpu
from benchmarks.router_cpu import body_of
from tests.traces.collector import collecting


def test_a_line_for_each_router(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_cpu, "WARM_UP", 1)
    assert trace_cpu.main(["--requests", "2", "--rounds", "1", "--kib", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("  ")[0] for line in lines] == list(trace_cpu.SHARES)


def test_only_the_router_that_traces_sends_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_cpu, "WARM_UP", 0)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    with collecting() as collector:
        times = asyncio.run(trace_cpu.measure(collector.url, 3, 1, body_of(0)))
        spans = collector.wait_until(lambda spans: len(spans) >= 12)
    assert len(spans) == 12  # four of each request
    assert times.keys() == trace_cpu.SHARES.keys()
