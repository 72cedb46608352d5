"""Attacks a running system, and measures good requests and memory meanwhile.

    python -m benchmarks.hostile                                  starts a system of its own
    python -m benchmarks.hostile --url http://127.0.0.1:8000      attacks one that runs on this machine

Each attack goes on until all its clients have their answer. Meanwhile three clients ask one question after the other:
about small new images on the attacked model and on another one, and for /healthz. The table has the median of their
times, the time that 95 of 100 do not exceed, and the worst, and the peak of each process's memory (resident, with what
it shares with Ray's object store) and its own memory some seconds after the attack. The decoding processes of the model
are counted together, and the largest of them for itself. Nothing else should run meanwhile: `load` is the machine's
load average at the end of each attack.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from benchmarks.hostile.attacks import ATTACKS, FILES, Attack, Outcome, Target
from benchmarks.hostile.watch import DECODING, HEALTH, OTHER, PROXY, REPLICA, ROUTER, SAME, Seen, watching
from tests.deployments.system import System
from tests.hostile_clients import open_files

READY_S = 300
TIMES = (
    "attack", "s", "its clients got", "same model: median s", "95 %", "worst", "other: median s", "95 %", "worst",
    "/healthz: worst", "not 200", "load",
)  # fmt: skip
MEMORY = (
    "attack", "proxy: peak MiB", "own after", "router", "own after", "replica", "own after", "decoding", "its largest",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Attack, and print a table."""
    options = _parser().parse_args(arguments)
    chosen = [attack for attack in ATTACKS if options.only in attack.name]
    with open_files(FILES), _system(options.url) as port:
        print(_header(TIMES), flush=True)
        memory = [_attack(attack, Target(port, options.model), options.other) for attack in chosen]
    print("", _header(MEMORY), *memory, sep="\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile")
    parser.add_argument("--url", help="a system on this machine; by default one is started and ended")
    parser.add_argument("--model", default="blip-large", help="the model that is attacked (blip-large)")
    parser.add_argument("--other", default="florence-2-base", help="another model that is asked (florence-2-base)")
    parser.add_argument("--only", default="", help="attacks whose names have these words")
    return parser


@contextmanager
def _system(url: str | None) -> Iterator[int]:
    """The port of the system that is attacked."""
    if url is not None:
        yield urlsplit(url).port or 80
        return
    with tempfile.TemporaryDirectory() as folder:
        print("starting a system", file=sys.stderr, flush=True)
        running = System(Path(folder))
        try:
            running.wait_for("ready:", READY_S)
            yield running.port
        finally:
            running.end()


def _attack(attack: Attack, target: Target, other: str) -> str:
    """Print the row of times; returns that of memory."""
    print(f"preparing: {attack.name}", file=sys.stderr, flush=True)
    attack.prepare()
    with watching(target.port, target.model, other) as end:
        print(f"attacking: {attack.name}", file=sys.stderr, flush=True)
        began = time.monotonic()
        outcome = attack.run(target)
        seconds = time.monotonic() - began
        seen = end()
    print(_row([attack.name, f"{seconds:.0f}", _counts(outcome), *_times(seen)]), flush=True)
    return _row([attack.name, *_memory(seen)])


def _counts(outcome: Outcome) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(outcome.items()))


def _times(seen: Seen) -> Iterator[str]:
    for asked in (SAME, OTHER):
        ranked = sorted(seen.seconds[asked])
        yield from (f"{one:.2f}" for one in (median(ranked), ranked[int(0.95 * (len(ranked) - 1))], ranked[-1]))
    yield from (f"{max(seen.seconds[HEALTH]):.2f}", ", ".join(sorted(set(seen.failed))), f"{os.getloadavg()[0]:.1f}")


def _memory(seen: Seen) -> Iterator[str]:
    for process in (PROXY, ROUTER, REPLICA):
        both = process in seen.peak
        yield from (str(seen.peak[process].resident), str(seen.after[process].own)) if both else ("none", "")
    yield from (str(seen.peak[DECODING].resident), str(seen.largest_decoding))


def _header(columns: Sequence[str]) -> str:
    return f"{_row(columns)}\n{_row(['--', *['--:'] * (len(columns) - 1)])}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
