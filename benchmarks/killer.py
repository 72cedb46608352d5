"""Kills a replica of a model every few seconds under load, and counts what its clients notice.

    python -m benchmarks.killer                          two replicas, 8 clients, a kill every 8 s for a minute
    python -m benchmarks.killer --without-retries        the same, and the router passes every loss on

Starts a system of its own with the local config and replicas of one model alone. The clients ask one
question after the other, half of them streamed, about a few images whose answers are known from before the first kill:
greedy, drawn with a seed, with log-probabilities. Some streams are drawn without a seed; only their end is checked.
A replica is killed with SIGKILL while all are ready, whatever it does; if the last one has not come back in time, the
kill waits for it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import yaml

from benchmarks.asking import Outcome, Question, known_questions, put
from benchmarks.http.systems import config_of as one_model
from tests.deployments.system import System

READY_S = 300
SETTLED_S = 4.0
"""Serve sends a replica requests some time after it has reported that it is ready: to kill the other one before would
leave none, and nobody to try again."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, count, and print what was seen."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        router = {"retry_share": 0.0, "retry_floor": 0} if options.without_retries else {}
        with running(Path(folder), options.model, options.replicas, router) as system:
            before_last: float = options.seconds - options.every

            def enough(seen: Seen) -> bool:
                return time.monotonic() - seen.began > before_last

            seen = asyncio.run(watch(system, options.model, options.clients, options.every, enough))
            log = system.log
    print("\n".join(report(seen, log)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.killer")
    parser.add_argument("--model", default="florence-2-base")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=8.0, help="seconds between two kills")
    parser.add_argument("--without-retries", action="store_true")
    return parser


# The system


@contextmanager
def running(folder: Path, model: str, replicas: int, router: Mapping[str, Any]) -> Iterator[System]:
    """A system with so many replicas of one model; ``router`` has further settings of its router."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config_of(model, replicas, router)), encoding="utf-8")
    print("starting a system", file=sys.stderr, flush=True)
    system = System(folder, "--config", str(folder / "config.yaml"))
    try:
        system.wait_for("ready:", READY_S)
        yield system
    finally:
        system.end()


def config_of(model: str, replicas: int, router: Mapping[str, Any]) -> dict[str, Any]:
    """The local config with this model alone; replicas report when they are ready."""
    config = one_model(model, replicas=replicas)
    config["applications"][0]["args"] |= router
    config["logging_config"]["log_level"] = "INFO"
    return config


def ready_replicas(system: System) -> int:
    """How often a replica has become ready since the start."""
    return system.log.count(" is ready after ")


# The load


@dataclass(slots=True)
class Seen:
    """What the clients got.

    Attributes:
        outcomes: How many requests ended how.
        seconds: Of each request that was answered.
        streamed: Number of requests for a stream.
        began: When the first kill could be; on the clock of ``time.monotonic``, as the others.
        kills: When replicas were killed.
        recovered: Seconds from each kill until all replicas were ready again.
        errors: The texts of errors, with how often they came.
    """

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    streamed: int = 0
    began: float = 0.0
    kills: list[float] = field(default_factory=list)
    recovered: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


async def watch(system: System, model: str, clients: int, every: float, enough: Callable[[Seen], bool]) -> Seen:
    """Ask, and kill a replica every so many seconds, until it is ``enough`` and all replicas are back."""
    seen = Seen()
    async with httpx.AsyncClient(base_url=system.url, timeout=150, trust_env=False) as http:
        questions = await known_questions(http, model)
        seen.began = time.monotonic()
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(_ask_until(over, http, questions, random.Random(number), seen))  # noqa: S311
            await _kill(system, model, every, enough, seen)
            over.set()
    return seen


async def _ask_until(
    over: asyncio.Event, http: httpx.AsyncClient, questions: Sequence[Question], rng: random.Random, seen: Seen
) -> None:
    while not over.is_set():
        question = rng.choice(questions)
        began = time.monotonic()
        reply = await put(http, question)
        seen.outcomes[reply.outcome] += 1
        seen.streamed += question.streams
        if reply.outcome == "answered":
            seen.seconds.append(time.monotonic() - began)
        else:
            seen.errors[f"{reply.outcome}: {reply.text}"] += 1


# The kills


async def _kill(system: System, model: str, every: float, enough: Callable[[Seen], bool], seen: Seen) -> None:
    started = ready_replicas(system)
    pause = every / 2
    while not enough(seen):
        await asyncio.sleep(pause)
        victim = random.choice([*system.processes(f"ServeReplica:{model}")])  # noqa: S311
        os.kill(victim, signal.SIGKILL)
        seen.kills.append(time.monotonic())
        await _ready(system, started + len(seen.kills))
        seen.recovered.append(time.monotonic() - seen.kills[-1])
        pause = max(SETTLED_S, every - seen.recovered[-1])


async def _ready(system: System, count: int) -> None:
    for _ in range(10 * READY_S):
        if ready_replicas(system) >= count:
            return
        await asyncio.sleep(0.1)


# The report


def report(seen: Seen, log: str) -> Iterator[str]:
    """What was seen, in lines."""
    total, ranked = seen.outcomes.total(), sorted(seen.seconds)
    yield f"requests            {total} ({seen.streamed} streamed)"
    yield f"kills               {len(seen.kills)}"
    yield f"failed              {seen.outcomes['refused'] + seen.outcomes['unanswered']}"
    yield f"cut streams         {seen.outcomes['cut']}"
    yield f"wrong texts         {seen.outcomes['differs']}"
    yield f"tried again         {log.count('tries a request again')}"
    yield f"streams gone on     {log.count('goes on with a stream')}"
    if ranked:
        p99 = ranked[int(0.99 * (len(ranked) - 1))]
        yield f"seconds             median {median(ranked):.2f}, 99 % {p99:.2f}, longest {ranked[-1]:.2f}"
    if seen.recovered:
        yield f"all ready again     after {median(seen.recovered):.1f} s, at the longest {max(seen.recovered):.1f} s"
    yield from (f"{count:6} x {text}" for text, count in seen.errors.most_common(10))


if __name__ == "__main__":
    sys.exit(main())
