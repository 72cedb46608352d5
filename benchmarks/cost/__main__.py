"""python -m benchmarks.cost: dollars for 1,000 images of each task, beside the list prices of serve_config.yaml.

    python -m benchmarks.cost --gpu-hour 2.50 --core-hour 0.04
    python -m benchmarks.cost --read benchmarks/results/http.json --markdown docs/benchmarks.md
    python -m benchmarks.cost --rate moondream-2=33 --load 0.5

Rates on a GPU are those measured on an H100 with answers of 20 tokens; those of other lengths are computed, and marked
so. With a report of `python -m benchmarks.http`, there is a second table of what 1,000 images cost on its machine: with
miniatures, that is mostly everything but the model. Prices of machines are what the command line says, and no quotes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import yaml

from benchmarks.cost.tasks import MEASURED_TOKENS, ON_GPU, TASKS, OnGpu
from benchmarks.http.report import Report, read
from benchmarks.http.servers import ROOT
from benchmarks.http.tables import paragraph, put, table

RESULTS = ROOT / "benchmarks" / "results"
IMAGES = 1000
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Row:
    """What a task costs.

    Attributes:
        tokens: Of an answer; None for a rate that was measured with answers that end by themselves.
        rate: Images a second at full load.
        source: "measured" or "computed".
        dollars: For 1,000 images, at the load that was asked for.
        list_price: The model's price for 1,000 images in serve_config.yaml; None without one.
        system: What served it.
        clients: At once; 0 where that is part of the source.
    """

    model: str
    task: str
    tokens: int | None
    rate: float
    source: str
    dollars: float
    list_price: float | None
    system: str
    clients: int = 0


@dataclass(frozen=True, slots=True)
class Prices:
    """What machines cost.

    Attributes:
        gpu_hour: Dollars an hour of the GPU together with its host.
        core_hour: Dollars an hour of one core together with its memory.
        load: The share of the time in which there is something to do: idle machines cost as much.
        images: Dollars for 1,000 images by model, from serve_config.yaml.
    """

    gpu_hour: float
    core_hour: float
    load: float
    images: Mapping[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, and write what is asked for."""
    options = _parser().parse_args(arguments)
    prices = Prices(options.gpu_hour, options.core_hour, options.load, list_prices())
    report = read(options.read) if options.read else None
    known = {**ON_GPU, **{name: replace(ON_GPU[name], rate=rate) for name, rate in options.rate}}
    on_gpu = list(gpu_rows(prices, known))
    on_cores = list(core_rows(prices, report)) if report else []
    text = section(prices, on_gpu, on_cores, report)
    print(text)
    options.folder.mkdir(parents=True, exist_ok=True)
    content = {"prices": asdict(prices), "gpu": [*map(asdict, on_gpu)], "cores": [*map(asdict, on_cores)]}
    (options.folder / "cost.json").write_text(json.dumps(content, indent=1), "utf-8")
    if options.markdown:
        put(options.markdown, "cost", text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--gpu-hour", type=_positive, default=2.50, help="dollars an hour of an H100 and its host (2.50)"
    )
    parser.add_argument("--core-hour", type=_positive, default=0.04, help="dollars an hour of a core (0.04)")
    parser.add_argument("--load", type=_share, default=1.0, help="share of the time with something to do (1)")
    parser.add_argument(
        "--rate", type=_rate, action="append", default=[], metavar="MODEL=N", help="images/s on the GPU"
    )
    parser.add_argument("--read", type=Path, metavar="JSON", help="a report of benchmarks.http")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where cost.json is written")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="put the tables between the page's marks")
    return parser


def _positive(text: str) -> float:
    if (value := float(text)) <= 0:
        raise ValueError(text)
    return value


def _share(text: str) -> float:
    if (value := _positive(text)) > 1:
        raise ValueError(text)
    return value


def _rate(text: str) -> tuple[str, float]:
    model, _, rate = text.partition("=")
    if model not in ON_GPU:
        raise ValueError(text)
    return model, _positive(rate)


def list_prices() -> dict[str, float]:
    """Dollars for 1,000 images by model, as GET /v1/models reports them."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text("utf-8"))
    router = next(one for one in config["applications"] if one["name"] == "router")
    return {model: float(price) for model, price in router["args"]["prices"].items()}


def dollars(rate: float, hour: float, load: float) -> float:
    """For 1,000 images on a machine that costs ``hour`` dollars an hour and does ``rate`` images a second if busy."""
    return IMAGES / (rate * load) * hour / HOUR_S


def gpu_rows(prices: Prices, rates: Mapping[str, OnGpu]) -> Iterator[Row]:
    """A row for each task of each model."""
    for model, tasks in TASKS.items():
        for task, tokens in tasks.items():
            rate = rates[model].rate_of(tokens)
            source = "measured" if tokens == MEASURED_TOKENS else "computed"
            cost = dollars(rate, prices.gpu_hour, prices.load)
            yield Row(model, task, tokens, rate, source, cost, prices.images.get(model), "ours")


def core_rows(prices: Prices, report: Report) -> Iterator[Row]:
    """A row for each model and system of a report, at the number of clients where it was fastest."""
    hour = prices.core_hour * report.machine.cores
    for model, system in dict.fromkeys((one.model, one.system) for one in report.cells):
        cells = [one for one in report.cells if (one.model, one.system) == (model, system)]
        best = max(cells, key=lambda one: median(one.rates))
        rate = median(best.rates)
        cost = dollars(rate, hour, prices.load)
        yield Row(model, "caption", None, rate, "measured", cost, prices.images.get(model), system, best.clients)


def section(prices: Prices, on_gpu: Sequence[Row], on_cores: Sequence[Row], report: Report | None) -> str:
    """Both tables, each with what it assumes."""
    parts = [
        paragraph(
            f"At ${prices.gpu_hour:.2f} an hour of an H100 with its host, busy {prices.load:.0%} of the time. Rates "
            f"of answers of {MEASURED_TOKENS} tokens are those that were measured ([above](#the-whole-engine), c = 64, "
            "greedy, images decoded before, which takes CPU time of the host); the others are computed from the time "
            "of a decode step. How long answers are is an assumption (`benchmarks/cost/tasks.py`)."
        ),
        table(
            ["", "task", "tokens", "images/s", "from", "$ for 1,000", "list price", "of it %"],
            ([*_beginning(one), one.source, *_ending(one)] for one in on_gpu),
        ),
    ]  # fmt: skip
    if report:
        parts += [
            paragraph(
                f"At ${prices.core_hour:.3f} an hour of a core, on the {report.machine.cores} cores of "
                f"{report.machine.cpu} ({report.machine.date}), where each system was fastest. These are miniatures: "
                "it is the cost of all but the model, and says nothing about the published weights."
            ),
            table(
                ["", "system", "c", "images/s", "$ for 1,000"],
                (
                    [one.model, one.system, str(one.clients), f"{one.rate:.1f}", f"{one.dollars:.5f}"]
                    for one in on_cores
                ),
            ),
        ]
    return "\n\n".join(parts)


def _beginning(row: Row) -> list[str]:
    return [row.model, row.task, str(row.tokens), f"{row.rate:.1f}"]


def _ending(row: Row) -> list[str]:
    if row.list_price is None:
        return [f"{row.dollars:.4f}", "", ""]
    return [f"{row.dollars:.4f}", f"{row.list_price:.3f}", f"{100 * row.dollars / row.list_price:.1f}"]


if __name__ == "__main__":
    sys.exit(main())
