"""Evaluate miniatures on held-out images, which no training uses: ``python -m training.evaluate [NAME...]``.

By default each checkpoint runs in this process; with ``--url``, a running gigarouter answers over HTTP. In both cases
with the checkpoint's own sampling settings. Prints a table of scores beside their targets.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch

from training.data.drawing import draw, png
from training.data.scenes import FLAT, Scene
from training.data.shapes import BACKGROUNDS, COLOURS
from training.data.stacks import stack
from training.data.world import HELD_OUT, LARGEST_SIDE, SMALLEST_SIDE, scene
from training.evaluation.clients import Client, EvaluationError, Server, connect, in_process
from training.evaluation.metrics import Item, Row, Score
from training.model_card import add_scores
from training.progress import Progress
from training.train import PACKAGES
from vlm.errors import VlmError

MINIATURES = Path(__file__).resolve().parents[1] / "miniatures"
MakeItems = Callable[[Scene, bytes, random.Random], Iterator[Item]]
NAMES = tuple(name for name in PACKAGES if name != "vision")


def load_evaluation(name: str) -> ModuleType:
    """The module with a model's ``items`` and ``ROWS``."""
    return importlib.import_module(f"training.{PACKAGES[name]}.evaluation")


async def evaluate(
    name: str, client: Client, scenes: Sequence[Scene], stacks: Sequence[Scene] = ()
) -> Mapping[str, tuple[float, int]]:
    """The score of each row, from 0 to 1, and the number of answers that it is computed from.

    ``stacks`` are stacked shapes, which only some evaluations ask about (those with ``stack_items``).
    """
    module = load_evaluation(name)
    items = [item for number, one in enumerate(scenes) for item in _items(module.items, one, number)]
    if hasattr(module, "stack_items"):
        items += [item for number, one in enumerate(stacks) for item in _items(module.stack_items, one, number)]
    answers = await _answer_all(client, items, Progress(name, len(items)))
    rows: defaultdict[str, list[Score]] = defaultdict(list)
    for scores in answers:
        for row, score in scores.items():
            rows[row].append(score)
    return {row: (_ratio(scores), len(scores)) for row, scores in rows.items()}


def table(rows: Sequence[Row], scores: Mapping[str, tuple[float, int]]) -> str:
    """One line for each row: its name, score, target and number of answers."""
    lines = []
    for row in rows:
        if row.name in scores:
            value, count = scores[row.name]
            target = "" if row.target is None else f"{row.target * 100:5.1f} {'ok' if value >= row.target else 'LOW'}"
            lines.append(f"  {row.name:34} {value * 100:6.1f}   {target:9} n={count}")
    return "\n".join(lines)


def held_out(count: int, size: tuple[int, int] | None = None) -> list[Scene]:
    """The first ``count`` held-out scenes; with a ``size`` (width, height), plain scenes laid out for that size."""
    scenes = [scene(HELD_OUT + number, size) for number in range(count)]
    return scenes if size is None else [plain(one) for one in scenes]


def held_out_stacks(count: int, size: tuple[int, int] | None = None) -> list[Scene]:
    """As :func:`held_out`, with shapes one above the other."""
    stacks = [stack(HELD_OUT + number, size) for number in range(count)]
    return stacks if size is None else [plain(one) for one in stacks]


def plain(one: Scene) -> Scene:
    """The scene in the exact colours of the palette and without texture."""
    shapes = tuple(replace(shape, shade=COLOURS[shape.colour]) for shape in one.shapes)
    return replace(one, shapes=shapes, shade=BACKGROUNDS[one.background], texture=FLAT)


def _items(make: MakeItems, one: Scene, number: int) -> Iterator[Item]:
    yield from make(one, png(draw(one)), random.Random(number))


async def _answer_all(client: Client, items: Sequence[Item], progress: Progress) -> list[Mapping[str, Score]]:
    """Start all requests at once: the client limits how many are in flight."""

    async def answer(item: Item) -> Mapping[str, Score]:
        scores = item.score(await client.answer(item.request))
        progress.step()
        return scores

    return await asyncio.gather(*map(answer, items))


def _ratio(scores: Sequence[Score]) -> float:
    possible = sum(score.possible for score in scores)
    return sum(score.gained for score in scores) / possible if possible else 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; returns the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    try:
        asyncio.run(_over_http(options) if options.url else _in_process(options))
    except VlmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


async def _in_process(options: argparse.Namespace) -> None:
    scenes = held_out(options.images, options.size)
    names = options.models or [name for name in NAMES if (options.folder / name).is_dir()]
    if not names:
        raise EvaluationError(f"{options.folder} has no folder {' or '.join(NAMES)}: give another --folder.")
    for name in names:
        folder = options.folder / name
        with in_process(folder) as client:
            await _report(name, client, scenes, str(folder), options)


async def _over_http(options: argparse.Namespace) -> None:
    async with connect(options.url) as server:
        names = await _served_names(server, options)
        scenes = held_out(options.images, options.size)
        for name in names:
            await _report(name, server.client(name), scenes, f"over HTTP from {options.url}", options)


async def _served_names(server: Server, options: argparse.Namespace) -> list[str]:
    """The models to evaluate.

    Raises:
        EvaluationError: The server lacks one of them, or ``--card`` was given and one has no folder.
    """
    served = await server.models()
    names = options.models or [name for name in NAMES if name in served]
    missing = [name for name in names if name not in served] or ([] if names else ["any miniature"])
    if missing:
        raise EvaluationError(
            f"{options.url} serves {', '.join(served) or 'nothing'}, and not {' or '.join(missing)}: name another, or "
            "add it to the server's configuration and restart the server (`make serve`)."
        )
    without_folder = [name for name in names if options.card and not (options.folder / name).is_dir()]
    if without_folder:
        raise EvaluationError(
            f"{options.folder} has no folder {' or '.join(without_folder)} for the card: give another --folder."
        )
    return names


async def _report(name: str, client: Client, scenes: Sequence[Scene], source: str, options: argparse.Namespace) -> None:
    stacks = held_out_stacks(max(1, len(scenes) // 3), options.size)
    lines = table(load_evaluation(name).ROWS, await evaluate(name, client, scenes, stacks))
    print(f"{name}  ({source}, {len(scenes)} images)\n{lines}", flush=True)
    if options.card:
        add_scores(options.folder / name, *_headings(len(scenes), options), lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    # argparse checks the default of an empty list against the choices, so [] must be one of them
    parser.add_argument("models", nargs="*", choices=[*NAMES, []], metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--url", help="evaluate what a running gigarouter serves, such as http://127.0.0.1:8000")
    parser.add_argument("--images", type=_positive, default=200, help="number of images (default: %(default)s)")
    parser.add_argument("--size", type=_size, help="WIDTHxHEIGHT: plain scenes that are laid out for this size")
    parser.add_argument(
        "--folder", type=Path, default=MINIATURES, help="holds the checkpoints by name (default: miniatures)"
    )
    parser.add_argument("--card", action="store_true", help="write the table into the checkpoint's README.md")
    return parser


def _headings(count: int, options: argparse.Namespace) -> tuple[str, str]:
    """The heading of the card's table, and the sentence that says how it was computed."""
    size = options.size
    scenes = "Held-out scenes" if size is None else f"Plain held-out scenes, {size[0]}x{size[1]}"
    over_http = ", over HTTP" if options.url else ""
    command = f"`python -m training.evaluate`{over_http}"
    return scenes, f"{command}: {count} images; scores and targets in percent, number of answers."


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError("must be an integer from 1 on")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    """Accept only sizes that the world has: no scene could be laid out for others."""
    sides = [int(side) for side in text.split("x") if side.isdecimal()]
    if len(sides) != 2 or min(sides) < SMALLEST_SIDE or max(sides) > min(LARGEST_SIDE, 2 * min(sides)):
        raise argparse.ArgumentTypeError(
            f"must be WIDTHxHEIGHT, each from {SMALLEST_SIDE} to {LARGEST_SIDE}, neither over twice the other"
        )
    return sides[0], sides[1]


if __name__ == "__main__":
    sys.exit(main())
