"""The points of each curve: what is asked of which system, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.http.measure import prepare, waiting_for
from benchmarks.http.plan import WARM_UP_S, Plan
from benchmarks.http.report import Cell
from benchmarks.http.servers import ROOT, Server, free_port, running
from benchmarks.http.systems import OURS, chat, start_ours
from benchmarks.http.turns import Served, Turns
from vlm.checkpoint.files import Checkpoint

Note = Callable[[str], None]
CLIENTS, SIZES, TOKENS, REPLICAS = "clients", "megapixels", "tokens", "replicas"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes:
        clients: Numbers of clients.
        sizes: Sizes of the images, (width, height).
        tokens: Lengths of the answers.
        replicas: Numbers of replicas of the model.
        usual: Number of clients on the other three curves.
        rounds, seconds: Every curve is walked along so often, and each of its points is under load for so long.
        images: Number of different images of each size.
    """

    clients: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    tokens: tuple[int, ...]
    replicas: tuple[int, ...]
    usual: int
    rounds: int
    seconds: float
    images: int


SCALES = {
    "full": Scale(
        (1, 2, 4, 8, 16, 32, 64, 128, 256),
        ((224, 224), (640, 480), (1280, 960), (2560, 1920), (4000, 3000)),
        (5, 10, 20, 40),
        (1, 2, 3, 4),
        usual=32, rounds=2, seconds=1.5, images=16,
    ),
    "tiny": Scale((1, 2), ((64, 48), (640, 480)), (2, 4), (1, 2), usual=2, rounds=1, seconds=0.1, images=2),
}  # fmt: skip
"""By name: ``tiny`` shows that everything works, and its numbers mean nothing."""

LONGEST = 20
"""Maximum number of tokens of an answer, on the curves that have no other."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a curve; ``x`` is the number of what grows."""

    curve: str
    x: float
    cell: Cell


@dataclass(frozen=True, slots=True)
class Question:
    """What a point asks: a system, and the number of its clients."""

    curve: str
    x: float
    system: Served
    clients: int


def curves(model: str, scale: Scale, chosen: Sequence[str], note: Note) -> Iterator[Point]:
    """All points of the chosen curves of a model, each curve as soon as it is measured."""
    along = [questions for curve, questions in ALONG.items() if curve in chosen]
    if along:
        note(f"{model}: starting the system")
        with _serving(model, scale, 1) as server:
            for questions in along:
                yield from walk(model, questions(model, scale, server), scale, note)
    for replicas in scale.replicas if REPLICAS in chosen else ():
        note(f"{model}: starting the system with {replicas} replicas")
        with _serving(model, scale, replicas) as server:
            asked = replace(_usual(model, scale, server), curve=REPLICAS, x=float(replicas))
            yield from walk(model, [asked], scale, note)


def walk(model: str, questions: Sequence[Question], scale: Scale, note: Note) -> Iterator[Point]:
    """Ask every question once, without counting, then all of them in each round."""
    for one in questions:
        note(f"{model}: {one.curve} {one.x:g}")
        one.system.turn(one.clients, WARM_UP_S)
    turns = [Turns() for _ in questions]
    for _ in range(scale.rounds):
        for one, each in zip(questions, turns, strict=True):
            each.done.append(one.system.turn(one.clients, scale.seconds))
    for one, each in zip(questions, turns, strict=True):
        yield Point(one.curve, one.x, each.cell(model, OURS, one.clients, objective_s=1.0))


def _by_clients(model: str, scale: Scale, server: Server) -> list[Question]:
    usual = _usual(model, scale, server)
    return [replace(usual, curve=CLIENTS, x=float(clients), clients=clients) for clients in scale.clients]


def _by_size(model: str, scale: Scale, server: Server) -> list[Question]:
    return [
        Question(SIZES, width * height / 1e6, _served(model, scale, server, (width, height)), scale.usual)
        for width, height in scale.sizes
    ]


def _by_tokens(model: str, scale: Scale, server: Server) -> list[Question]:
    """Answers do not end by themselves here, and so they are not those of transformers."""
    usual = _usual(model, scale, server)
    ends = Checkpoint.open(ROOT / "miniatures" / model).generation["eos_token_id"]
    never = {"logit_bias": {str(token): -100 for token in (ends if isinstance(ends, list) else [ends])}}

    def system(tokens: int) -> Served:
        return replace(usual.system, format=chat(model, tokens, more=never), expected=None)

    return [replace(usual, curve=TOKENS, x=float(tokens), system=system(tokens)) for tokens in scale.tokens]


ALONG = {CLIENTS: _by_clients, SIZES: _by_size, TOKENS: _by_tokens}
"""The curves of one system; for that of replicas, each point is another one."""


def _usual(model: str, scale: Scale, server: Server) -> Question:
    return Question(CLIENTS, float(scale.usual), _served(model, scale, server, (640, 480)), scale.usual)


def _served(model: str, scale: Scale, server: Server, size: tuple[int, int]) -> Served:
    plan = Plan(scale.clients, scale.rounds, scale.seconds, (), 0.0, tokens=LONGEST, images=scale.images)
    _, raws, images = prepare(model, plan, size)
    return Served(OURS, server.port, server.process, chat(model, LONGEST), images, raws)


@contextmanager
def _serving(model: str, scale: Scale, replicas: int) -> Iterator[Server]:
    with TemporaryDirectory(prefix="gb-", dir="/tmp") as folder:
        waiting = waiting_for(max(*scale.clients, scale.usual))
        start = start_ours(model, free_port(), Path(folder), waiting=waiting, replicas=replicas)
        with running([start], Path(folder)) as (server,):
            yield server
