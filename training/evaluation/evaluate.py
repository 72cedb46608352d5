"""Examine miniatures on images that no training has seen: ``python -m training.evaluation.evaluate [NAME...]``.

Answers come from the project's own engine with each checkpoint's own settings, as clients get them; with ``--url`` from
a running gigarouter over HTTP. Prints a table of scores with the targets of a finished miniature.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import io
import random
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch
from PIL import Image

from training.data.drawing import draw
from training.data.scenes import Scene, Texture
from training.data.shapes import BACKGROUNDS, COLOURS
from training.data.world import HELD_OUT, LARGEST_SIDE, SMALLEST_SIDE, scene
from training.evaluation.clients import Asker, CannotExamine, Server, in_process, reach
from training.evaluation.metrics import Item, Mark, Row
from training.model_card import add_scores
from training.progress import Progress
from training.train import PACKAGES
from vlm.errors import VlmError

MINIATURES = Path(__file__).resolve().parents[2] / "miniatures"
NAMES = tuple(name for name in PACKAGES if name != "vision")


def examination(name: str) -> ModuleType:
    """The module with a model's ``items`` and ``ROWS``."""
    return importlib.import_module(f"training.{PACKAGES[name]}.evaluation")


async def score(name: str, asker: Asker, scenes: Sequence[Scene]) -> Mapping[str, tuple[float, int]]:
    """Each row's score in 0..1, and how many answers it is of."""
    items = [item for number, one in enumerate(scenes) for item in _items(name, one, number)]
    marks = await _marked(asker, items, Progress(name, len(items)))
    sums: defaultdict[str, list[Mark]] = defaultdict(list)
    for earned in marks:
        for row, mark in earned.items():
            sums[row].append(mark)
    return {row: (_ratio(marks), len(marks)) for row, marks in sums.items()}


def table(rows: Sequence[Row], scores: Mapping[str, tuple[float, int]]) -> str:
    """One line a row: its name, score, target and number of answers."""
    lines = []
    for row in rows:
        if row.name in scores:
            value, count = scores[row.name]
            target = "" if row.target is None else f"{row.target * 100:5.1f} {'ok' if value >= row.target else 'LOW'}"
            lines.append(f"  {row.name:34} {value * 100:6.1f}   {target:9} n={count}")
    return "\n".join(lines)


def held_out(count: int, size: tuple[int, int] | None = None) -> list[Scene]:
    """So many scenes of the held-out seeds; with a ``size`` (width, height) laid out for it and plain, as by hand."""
    scenes = [scene(HELD_OUT + number, size) for number in range(count)]
    return scenes if size is None else [plain(one) for one in scenes]


def plain(one: Scene) -> Scene:
    """The scene in the palette's own colours, without texture."""
    shapes = tuple(replace(shape, shade=COLOURS[shape.colour]) for shape in one.shapes)
    flat = Texture((0.0, 0.0), 0.0, 1, 0.0, 0)
    return replace(one, shapes=shapes, shade=BACKGROUNDS[one.background], texture=flat)


def _items(name: str, one: Scene, number: int) -> Iterator[Item]:
    items: Iterator[Item] = examination(name).items(one, _png(draw(one)), random.Random(number))
    yield from items


async def _marked(asker: Asker, items: Sequence[Item], progress: Progress) -> list[Mapping[str, Mark]]:
    """All at once: the asker knows how many it can take."""

    async def ask(item: Item) -> Mapping[str, Mark]:
        earned = item.mark(await asker.ask(item.request))
        progress.step()
        return earned

    return await asyncio.gather(*map(ask, items))


def _ratio(marks: Sequence[Mark]) -> float:
    possible = sum(mark.possible for mark in marks)
    return sum(mark.gained for mark in marks) / possible if possible else 1.0


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables."""
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
        raise CannotExamine(f"{options.folder} has no folder {' or '.join(NAMES)}: name another --folder.")
    for name in names:
        folder = options.folder / name
        with in_process(folder) as asker:
            await _examine(name, asker, scenes, str(folder), options)


async def _over_http(options: argparse.Namespace) -> None:
    async with reach(options.url) as server:
        names = await _served(server, options)
        scenes = held_out(options.images, options.size)
        for name in names:
            await _examine(name, server.asker(name), scenes, f"over HTTP from {options.url}", options)


async def _served(server: Server, options: argparse.Namespace) -> list[str]:
    """The names to examine, all of which the server has and, where a card is wanted, a folder, too."""
    served = await server.models()
    names = options.models or [name for name in NAMES if name in served]
    missing = [name for name in names if name not in served] or ([] if names else ["any miniature"])
    if missing:
        raise CannotExamine(
            f"{options.url} serves {', '.join(served) or 'nothing'}, and not {' or '.join(missing)}: name another, or "
            "add it to the configuration of the server and start that again (`make serve`)."
        )
    homeless = [name for name in names if options.card and not (options.folder / name).is_dir()]
    if homeless:
        raise CannotExamine(f"{options.folder} has no folder {' or '.join(homeless)} for the card: name its --folder.")
    return names


async def _examine(name: str, asker: Asker, scenes: Sequence[Scene], source: str, options: argparse.Namespace) -> None:
    lines = table(examination(name).ROWS, await score(name, asker, scenes))
    print(f"{name}  ({source}, {len(scenes)} images)\n{lines}", flush=True)
    if options.card:
        add_scores(options.folder / name, *_told(len(scenes), options), lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.evaluation.evaluate", description=__doc__)
    # [] is among the choices because argparse looks there for the list of no names, too
    parser.add_argument("models", nargs="*", choices=[*NAMES, []], metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--url", help="ask a running gigarouter, such as http://127.0.0.1:8000, for what it serves")
    parser.add_argument("--images", type=_count, default=200, help="how many to ask about")
    parser.add_argument("--size", type=_size, help="images laid out for WIDTHxHEIGHT and drawn plainly, as by hand")
    parser.add_argument("--folder", type=Path, default=MINIATURES, help="holds the checkpoints, by name (this package)")
    parser.add_argument("--card", action="store_true", help="put the table into the checkpoint's README.md")
    return parser


def _told(count: int, options: argparse.Namespace) -> tuple[str, str]:
    """The heading of a card's table, and how it came about."""
    size = options.size
    sort = "Of the held-out seeds" if size is None else f"Drawn plainly for {size[0]}x{size[1]}"
    way = ", over HTTP" if options.url else ""
    return (
        sort,
        f"`python -m training.evaluation.evaluate`{way}: {count} images, in percent, with the target of each row.",
    )


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError("must be a number from 1 on")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    """Only sizes of the world: others could hold no scene by its rules."""
    sides = [int(side) for side in text.split("x") if side.isdecimal()]
    if len(sides) != 2 or min(sides) < SMALLEST_SIDE or max(sides) > min(LARGEST_SIDE, 2 * min(sides)):
        raise argparse.ArgumentTypeError(
            f"must be WIDTHxHEIGHT, each from {SMALLEST_SIDE} to {LARGEST_SIDE}, neither over twice the other"
        )
    return sides[0], sides[1]


if __name__ == "__main__":
    sys.exit(main())
