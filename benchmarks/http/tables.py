"""The tables of a report, in Markdown, and how they are put into a page."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median

from benchmarks.http.accounting import PARTS
from benchmarks.http.report import Cell, Machine, Report, Step
from benchmarks.http.statistics import ratio
from benchmarks.http.systems import DIRECT, LITSERVE, OURS, RAY_SERVE, STREAMED

PEERS = (LITSERVE, RAY_SERVE, DIRECT)
NONE = ""
WIDTH = 120
TEXTS = (NONE, "system", "task", "from")
"""Heads of the columns that have no numbers."""


def page_section(report: Report) -> str:
    """All tables, each with a sentence on what it has."""
    settings = report.settings
    objective = f"{settings['objective_s']:g} s"
    return "\n\n".join([
        machine_line(report.machine),
        paragraph(
            f"Requests a second of new JPEGs, at most {settings['tokens']} tokens, greedy; c is the number of clients. "
            "Ratios are ours / theirs, the median of the rounds' ratios, with the least and the greatest. transformers "
            f"has no server and runs in batches of c. `good` are answers a second within {objective}, `first` the "
            "median time to the first text of an answer that streams."
        ),
        rates(report),
        "Milliseconds of CPU a request by what the processes do, and the largest sum of their memory (PSS):",
        cpu(report),
        *arrivals_section(report, objective),
        notes(report),
    ])  # fmt: skip


def arrivals_section(report: Report, objective: str) -> Iterator[str]:
    """What happens when requests arrive at random, if it was measured."""
    if report.steps:
        yield paragraph(
            "Arrivals at random (Poisson): the highest rate at which 95 of 100 requests were answered within "
            f"{objective}, and the times there; then the first rate at which they were not."
        )
        yield arrivals(report)


def machine_line(machine: Machine) -> str:
    """Where and when."""
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    before, after = machine.load
    return paragraph(
        f"{machine.date}; {machine.cores} cores of {machine.cpu}, {machine.memory_gib:g} GiB; Python {machine.python}, "
        f"{packages}; load average {before:g} before, {after:g} after."
    )


def rates(report: Report) -> str:
    """A row for each model and number of clients."""
    head = ["", "c", "ours/s", "first ms", "p50 ms", "p95", "p99", "good/s"]
    head += [words for peer in PEERS for words in (f"{peer}/s", "ratio")]
    return table(head, (_rates_row(report, cell) for cell in report.cells if cell.system == OURS))


def _rates_row(report: Report, ours: Cell) -> list[str]:
    streamed = report.cell(ours.model, STREAMED, ours.clients)
    row = [
        ours.model,
        str(ours.clients),
        f"{median(ours.rates):.1f}",
        f"{streamed.first.p50:.0f}" if streamed else NONE,
    ]
    row += [f"{one:.0f}" for one in (ours.times.p50, ours.times.p95, ours.times.p99)]
    row.append(f"{ours.goodput:.1f}")
    for name in PEERS:
        row += _against(ours, report.cell(ours.model, name, ours.clients))
    return row


def _against(ours: Cell, theirs: Cell | None) -> list[str]:
    if theirs is None:
        return [NONE, NONE]
    found = ratio(ours.rates, theirs.rates)
    return [f"{median(theirs.rates):.1f}", f"**{found.median:.2f}** ({found.least:.2f}-{found.greatest:.2f})"]


def cpu(report: Report) -> str:
    """A row for each model, number of clients and system."""
    head = ["", "c", "system", "all", *PARTS, "p50 ms", "p95", "p99", "good/s", "MiB"]
    return table(head, (_cpu_row(cell) for cell in report.cells))


def _cpu_row(cell: Cell) -> list[str]:
    parts = [f"{cell.cpu_ms[part]:.2f}" if part in cell.cpu_ms else NONE for part in PARTS]
    served = cell.system != DIRECT
    seen = [f"{one:.0f}" for one in (cell.times.p50, cell.times.p95, cell.times.p99)] + [f"{cell.goodput:.1f}"]
    return [
        cell.model, str(cell.clients), cell.system, f"{sum(cell.cpu_ms.values()):.2f}", *parts,
        *(seen if served else [NONE] * len(seen)), f"{cell.memory_mib:.0f}",
    ]  # fmt: skip


def arrivals(report: Report) -> str:
    """A row for each model and system."""
    head = ["", "system", "holds at", "p50 ms", "p95", "p99", "good/s", "breaks at", "p95 ms", "good/s", "failed"]
    pairs = dict.fromkeys((one.model, one.system) for one in report.steps)
    return table(head, (_arrivals_row(report, *pair) for pair in pairs))


def _arrivals_row(report: Report, model: str, system: str) -> list[str]:
    steps = [one for one in report.steps if (one.model, one.system) == (model, system)]
    held: Step | None = max((one for one in steps if one.holds), key=lambda one: one.offered, default=None)
    broken = next((one for one in steps if not one.holds), None)
    row = [model, system]
    if held is None:
        row += [NONE] * 5
    else:
        seen = (held.times.p50, held.times.p95, held.times.p99)
        row += [f"{held.offered:.0f}", *(f"{one:.0f}" for one in seen), f"{held.goodput:.1f}"]
    if broken is None:
        return [*row, "not reached", NONE, NONE, NONE]
    return [
        *row, f"{broken.offered:.0f}", f"{broken.times.p95:.0f}", f"{broken.goodput:.1f}",
        f"{broken.failed} of {broken.requests}",
    ]  # fmt: skip


def notes(report: Report) -> str:
    """Which answers differ, what the client took, and what idle systems do."""
    differ = [
        f"{one.system} on {one.model} at c = {one.clients}: {one.differ} of {one.answers}"
        for one in report.cells
        if one.differ
    ]
    clients = [one.client_cpu_ms for one in report.cells if one.client_cpu_ms]
    idle = [f"{name} {100 * share:.1f} %" for shares in report.idle_cpu.values() for name, share in shares.items()]
    others = "held still (SIGSTOP)" if report.settings.get("hold") else "left to idle"
    lines = [
        "* Answers whose text differs from what transformers says about the image alone: "
        f"{'; '.join(differ) or 'none'}.",
        f"* The client took {min(clients, default=0):.2f} to {max(clients, default=0):.2f} ms of CPU a request.",
        f"* Idle, the systems take of one core: {', '.join(idle) or 'not measured'}. Those that are not under load are "
        f"{others} meanwhile.",
    ]
    return "\n".join(paragraph(line, "  ") for line in lines)


def paragraph(text: str, indent: str = "") -> str:
    """Text in lines of the width that the pages have; ``indent`` is that of all lines but the first."""
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def table(head: Sequence[str], rows: Iterable[list[str]]) -> str:
    """A table in Markdown, whose numbers stand on the right. A first cell that repeats the one above is left empty."""
    rule = ["---" if one in TEXTS else "--:" for one in head]
    lines = [list(head), rule, *_without_repeats(rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _without_repeats(rows: Iterable[list[str]]) -> Iterator[list[str]]:
    last = None
    for row in rows:
        yield [NONE, *row[1:]] if row[0] == last else row
        last = row[0]


# Pages


def put(page: Path, name: str, text: str) -> None:
    """Replace what stands between the marks ``<!-- name: begin -->`` and ``<!-- name: end -->`` of a page.

    Raises:
        SystemExit: The page does not have both marks.
    """
    before, begin, rest = page.read_text("utf-8").partition(f"<!-- {name}: begin -->\n")
    _, end, after = rest.partition(f"<!-- {name}: end -->")
    if not begin or not end:
        raise SystemExit(f"error: {page} has no place for it: <!-- {name}: begin -->, <!-- {name}: end -->")
    page.write_text(f"{before}{begin}\n{text}\n\n{end}{after}", "utf-8")
