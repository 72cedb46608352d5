"""One model, on all systems."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers.utils import logging

from benchmarks.http.accounting import counting
from benchmarks.http.direct import transformers
from benchmarks.http.images import Images
from benchmarks.http.plan import IDLE_S, WARM_UP_CLIENTS, WARM_UP_S, Plan
from benchmarks.http.report import Cell, Step
from benchmarks.http.servers import ROOT, Server, free_port, running
from benchmarks.http.systems import (
    STREAMED,
    Format,
    chat,
    plain,
    start_litserve,
    start_ours,
    start_ray_serve,
)
from benchmarks.http.turns import Batches, Contender, Served, step, take_turns
from benchmarks.peers.captions import Setting
from vlm.checkpoint.files import Checkpoint
from vlm.loading import find_family
from vlm.reference import native_prompt, reference

Note = Callable[[str], None]
SEED = 1
"""Of the arrivals: every system gets the same ones."""


@dataclass(frozen=True, slots=True)
class Contest:
    """The systems that run, ready to take turns.

    Attributes:
        served: Those behind HTTP; of each server, one.
        all: All that take turns in the closed loop.
    """

    served: Sequence[Served]
    all: Sequence[Contender]


def measure_model(model: str, plan: Plan, python: Path, note: Note) -> Iterator[Cell | Step | dict[str, float]]:
    """What is measured, as soon as it is there: first the CPU that idle systems take, then cells, then steps."""
    with contest(model, plan, python, note) as systems:
        note(f"{model}: warming up")
        for one in systems.all:
            one.turn(min(WARM_UP_CLIENTS, max(plan.clients)), WARM_UP_S)
        yield {one.name: idle(one) for one in systems.served}
        best = 0.0
        for clients in plan.clients:
            note(f"{model}: {clients} at once")
            cells = take_turns(
                systems.all, model, clients,
                rounds=plan.rounds, seconds=plan.seconds, objective_s=plan.objective_s,
            )  # fmt: skip
            best = max(best, *(max(cell.rates) for cell in cells))
            yield from cells
        yield from rising(systems.served, model, [share * best for share in plan.steps], plan, note)


@contextmanager
def contest(model: str, plan: Plan, python: Path, note: Note) -> Iterator[Contest]:
    """Start all systems with a model; they end with the block.

    Args:
        python: The interpreter that has LitServe.
    """
    setting, raws, images = prepare(model, plan)
    with ExitStack() as ending:
        folder = Path(ending.enter_context(TemporaryDirectory(prefix="gb-", dir="/tmp")))
        (folder / "images").mkdir()
        note(f"{model}: starting the systems")
        starts = [
            start_ours(model, free_port(), folder, waiting=waiting_for(max(plan.clients))),
            start_litserve(setting, free_port(), python),
            start_ray_serve(setting, free_port(), folder),
        ]
        servers = ending.enter_context(running(starts, folder))
        direct = ending.enter_context(transformers(setting, images.files, folder / "images"))
        held = servers if plan.hold else []

        def served(server: Server, form: Format, expected: Sequence[str], name: str = "") -> Served:
            return Served(
                name or server.name, server.port, server.process, form, images, expected, bool(name), server, held
            )

        ours, litserve, ray_serve = servers
        every = [
            served(ours, chat(model, plan.tokens), raws),
            served(litserve, plain(), direct.texts),
            served(ray_serve, plain(), direct.texts),
        ]
        streamed = [served(ours, chat(model, plan.tokens, streaming=True), raws, STREAMED)] if plan.streamed else []
        yield Contest(every, [*every, *streamed, Batches(direct, held)])


def prepare(model: str, plan: Plan, size: tuple[int, int] = (640, 480)) -> tuple[Setting, list[str], Images]:
    """What the peers generate, what our answers must be, and the images."""
    logging.disable_progress_bar()
    torch.set_num_threads(plan.threads)
    folder = ROOT / "miniatures" / model
    checkpoint = Checkpoint.open(folder)
    processor = find_family(checkpoint)[1].processor(checkpoint)
    images = Images(plan.images, size)
    prompt = native_prompt(processor, images.files[0])
    answer = reference(checkpoint, prompt=prompt, tokens=plan.tokens)
    raws = [processor.decode(answer(file), special=True) for file in images.files]
    ban = checkpoint.generation.get("no_repeat_ngram_size") or 0
    return Setting(str(folder), prompt, plan.tokens, ban, plan.threads), raws, images


def waiting_for(clients: int) -> int:
    """Room for twice as many as ever come at once: one caller, which they all are, gets less than everything."""
    return 2 * clients


def idle(system: Served) -> float:
    """The share of a core that a system takes while nobody asks it anything."""
    if system.root is None:
        return 0.0
    with counting(system.root) as used:
        time.sleep(IDLE_S)
    return round(sum(used.cpu_s.values()) / IDLE_S, 4)


def rising(systems: Sequence[Served], model: str, rates: Sequence[float], plan: Plan, note: Note) -> Iterator[Step]:
    """Steps at rising rates, the systems in turns; a system whose objective is broken takes no further ones."""
    holding = list(systems)
    for rate in rates:
        note(f"{model}: {rate:.0f} a second arrive")
        for one in list(holding):
            done = step(one, model, rate, seconds=plan.step_seconds, objective_s=plan.objective_s, seed=SEED)
            yield done
            if not done.holds:
                holding.remove(one)
