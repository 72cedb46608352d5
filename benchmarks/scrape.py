"""What metrics cost a router: CPU time of one scrape, and of what is counted for each request, by number of models.

    .venv/bin/python -m benchmarks.scrape

All of it in this process, in CPU seconds, which another process that takes turns with it does not change. The last
column is the part of one core that goes to a scrape every 15 s, which is what a Prometheus takes by default or less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

from metrics.catalogue import HELD_PLACES
from metrics.prometheus import PrometheusMetrics
from router.asgi.metering import RequestRecord
from router.request_metrics import RequestMeter
from vlm.errors import EngineFailure, InvalidRequest, Overloaded, VlmError
from vlm.types import Timings, Usage

EVERY_S = 15.0
MODELS = (1, 4, 32, 256)
ERRORS: tuple[VlmError | None, ...] = (None, Overloaded("full"), EngineFailure("failed"), InvalidRequest("no"))
"""How the requests of each model end, so that it has the series that a model in use has."""
REQUESTS = 20_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a line for each number of models."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scrape")
    parser.add_argument("--scrapes", type=int, default=15, help="of which the median counts")
    options = parser.parse_args(arguments)
    print(f"{'models':>6} {'series':>7} {'KiB':>6} {'scrape ms':>10} {'request us':>11} {'core %':>7}")
    for models in MODELS:
        print(line(models, options.scrapes))
    return 0


def line(models: int, scrapes: int) -> str:
    """The figures of a router with so many models."""
    metrics = PrometheusMetrics()
    names = [f"model-{number}" for number in range(models)]
    metrics.watch(HELD_PLACES, lambda: {(name,): 1.0 for name in names})
    meter = RequestMeter(metrics, lambda _model: True)
    records = [record(name, error) for name in names for error in ERRORS]
    for one in records:
        meter({}, one)
    answered = records[:: len(ERRORS)]

    def count() -> None:
        for at in range(REQUESTS):
            meter({}, answered[at % models])

    each_s = cpu_s(count) / REQUESTS
    page = metrics.exposition()
    series = sum(not one.startswith(b"#") for one in page.splitlines())
    scrape_s = median(cpu_s(metrics.exposition) for _ in range(scrapes))
    share = 100 * scrape_s / EVERY_S
    return f"{models:6} {series:7} {len(page) / 1024:6.0f} {scrape_s * 1e3:10.2f} {each_s * 1e6:11.1f} {share:7.3f}"


def record(model: str, error: VlmError | None) -> RequestRecord:
    """A request that was answered as a stream, or that has failed."""
    if error is not None:
        return RequestRecord("id", "failed", model, (), None, 0, error, None, None, 0.2)
    usage = Usage(image_tokens=577, text_tokens=3, completion_tokens=20)
    answered = RequestRecord("id", "completed", model, ("caption",), usage, 20, None, 0.01, 0.03, 0.2)
    return replace(answered, images=1, streamed=True, timings=Timings(5.0, 1.0, 20.0, 200.0))


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds that ``work`` takes in this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    raise SystemExit(main())
