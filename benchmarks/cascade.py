"""python -m benchmarks.cascade: what a cascade of two miniatures gets right, and what it costs, beside each alone.

Asks a router in this process about labelled images of the miniatures' world, half of them disturbed, whose seed no
calibration has seen. Prices are those of ``serve_config.yaml``. The goal is at least 99 % of the accuracy of the best
model for at most 60 % of its cost.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.labelled import TASKS, Question, is_right, questions
from router.app import create_app
from router.backends.base import LocalBackend
from router.config import RouterConfig
from training.evaluation.clients import read_detection, task_json
from vlm.engine.engine import Engine
from vlm.loading import info, load
from vlm.types import Chunk, ModelInfo, Request

ROOT = Path(__file__).parent.parent
SEED = 8_000_000
GOAL_ACCURACY, GOAL_COST = 0.99, 0.6
PER_IMAGES = 1000
_IN_FLIGHT = 16

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Described:
    """An engine, and what it has loaded: the router has to know which tasks it is calibrated for."""

    engine: Engine
    info: ModelInfo

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """See :class:`~router.backends.base.Generator`."""
        return self.engine.generate(request)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of all questions of a task.

    Attributes:
        name: The model, or the models of a cascade.
        accuracy: The share of right answers.
        cost: US dollars for 1,000 images.
        passed_on: The share of questions that the last of several models got; None for one model.
    """

    name: str
    accuracy: float
    cost: float
    passed_on: float | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask everybody and print a table."""
    options = _parser().parse_args(arguments)
    prices = prices_of(ROOT / "serve_config.yaml")
    with ExitStack() as stack:
        engines = {name: _loaded(ROOT / "miniatures" / name, stack) for name in sorted(prices)}
        app = create_app(LocalBackend(engines), RouterConfig(prices=prices))
        asyncio.run(_all_tasks(app, prices, options))
    return 0


def _loaded(folder: Path, stack: ExitStack) -> Described:
    loaded = load(folder, dtype="float32", device="cpu")
    return Described(stack.enter_context(Engine(loaded)), info(loaded))


def prices_of(path: Path) -> dict[str, str]:
    """The prices in a configuration of the deployment."""
    found = next(_under(yaml.safe_load(path.read_text(encoding="utf-8")), "prices"))
    return {str(name): str(price) for name, price in found.items()}


def table(task: str, results: Sequence[Result]) -> str:
    """One line for each model and each cascade, beside the best of the models alone."""
    best = max((one for one in results if one.passed_on is None), key=lambda one: (one.accuracy, -one.cost))
    return "\n".join(_line(task, one, best) for one in results)


async def _all_tasks(app: Any, prices: dict[str, str], options: argparse.Namespace) -> None:
    print(f"{'task':9}{'asked':36}{'right':>7}{'of best':>9}{'$/1000':>8}{'of best':>9}{'passed on':>11}")
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://router", timeout=None) as http:  # noqa: S113
        for task in options.tasks:
            asked = questions(TASKS[task], options.questions, SEED + options.seed)
            alone = [one for name in sorted(prices) if (one := await _result(http, asked, [name], prices, None))]
            if len(alone) > 1:
                print(table(task, [*alone, *await _cascades(http, asked, alone, prices, options)]), flush=True)


async def _cascades(
    http: httpx.AsyncClient,
    asked: Sequence[Question],
    alone: Sequence[Result],
    prices: dict[str, str],
    options: argparse.Namespace,
) -> list[Result]:
    """Each cheaper model before each dearer one."""
    pairs = combinations(sorted((one.name for one in alone), key=lambda name: (float(prices[name]), name)), 2)
    tried = [
        await _result(http, asked, pair, prices, options.min_confidence)
        for pair in pairs
        if float(prices[pair[0]]) < float(prices[pair[1]])
    ]
    return [one for one in tried if one is not None]


async def _result(
    http: httpx.AsyncClient,
    asked: Sequence[Question],
    models: Sequence[str],
    prices: dict[str, str],
    min_confidence: float | None,
) -> Result | None:
    """What one model or a cascade of several makes of all questions; None if that is refused, or answered otherwise."""
    in_flight = asyncio.Semaphore(_IN_FLIGHT)

    async def ask(question: Question) -> Json | None:
        async with in_flight:
            answer = await http.post("/v1/chat/completions", json=_body(question, models, min_confidence))
        if answer.status_code == httpx.codes.BAD_REQUEST:
            return None
        answer.raise_for_status()
        found: Json = answer.json()
        return found

    if await ask(asked[0]) is None:
        return None
    answers = [one for one in await asyncio.gather(*map(ask, asked)) if one is not None]
    right = [_is_right(question, answer) for question, answer in zip(asked, answers, strict=True)]
    if not any(right):
        return None
    if len(models) == 1:
        return Result(models[0], sum(right) / len(asked), float(prices[models[0]]))
    routes = [answer["x_gigarouter"]["routing"] for answer in answers]
    cost = PER_IMAGES * sum(route["cost_usd"] for route in routes) / len(asked)
    passed_on = sum(len(route["tried"]) > 1 for route in routes) / len(asked)
    return Result(" > ".join(models), sum(right) / len(asked), cost, passed_on)


def _body(question: Question, models: Sequence[str], min_confidence: float | None) -> Json:
    url = f"data:image/png;base64,{base64.b64encode(question.image).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}]
    body: Json = {"messages": [{"role": "user", "content": content}], "task": task_json(question.task)}
    if len(models) == 1:
        return {**body, "model": models[0]}
    return {**body, "model": "cascade", "models": list(models), "min_confidence": min_confidence}


def _is_right(question: Question, answer: Json) -> bool:
    grounding = answer["choices"][0]["message"]["grounding"]
    return is_right(question, grounding["text"], [read_detection(one) for one in grounding["objects"]])


def _under(tree: Any, key: str) -> Iterator[Json]:
    """The objects under a key, wherever it is."""
    if isinstance(tree, dict):
        if isinstance(tree.get(key), dict):
            yield tree[key]
        tree = list(tree.values())
    if isinstance(tree, list):
        for one in tree:
            yield from _under(one, key)


def _line(task: str, one: Result, best: Result) -> str:
    accuracy, cost = one.accuracy / best.accuracy, one.cost / best.cost
    passed_on = "" if one.passed_on is None else f"{one.passed_on:11.1%}"
    reached = " goal" if one.passed_on is not None and accuracy >= GOAL_ACCURACY and cost <= GOAL_COST else ""
    return f"{task:9}{one.name:36}{one.accuracy:7.1%}{accuracy:9.1%}{one.cost:8.3f}{cost:9.1%}{passed_on}{reached}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cascade")
    parser.add_argument("--tasks", nargs="+", choices=[*TASKS], default=[*TASKS], help="default: all")
    parser.add_argument("--questions", type=int, default=600, help="of each task (default: 600)")
    parser.add_argument("--seed", type=int, default=0, help="added to the seed of the images (default: 0)")
    parser.add_argument(
        "--min-confidence", type=float, default=None, help="of the cascades (default: what the calibrations say)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
