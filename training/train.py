"""Train one miniature: ``python -m training.train NAME``.

Goes on from the state in its folder if told to, and ends by writing the checkpoint into ``export`` beside it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from training.data.batches import Batches, Source
from training.data.rendered import PAGES, open_images
from training.export import pack
from training.model_card import write_card
from training.recipe import Course
from training.trainer import STATE, Schedule, Trainer
from training.vision.transfer import read_sight

_SIGHT = "sight"
FOLDERS = {
    "florence-2-base": "florence2",
    "blip-large": "blip",
    "kosmos-2": "kosmos2",
    "moondream-2": "moondream2",
    _SIGHT: "vision",
}


def course_of(name: str) -> Course:
    """The course of a model, by its name."""
    found: Course = importlib.import_module(f"{__package__}.{FOLDERS[name]}.recipe").COURSE
    return found


def trainer(course: Course, folder: Path, images: Path, steps: int | None = None) -> Trainer:
    """A lesson at its beginning, with its images drawn."""
    drawn, count = open_images(images, course.side, course.shards, _say), course.batch
    world = Source(drawn, count, nested=count // 8, rich=count // 2)
    pages = None
    if course.pages:
        pages = Source(open_images(images, course.side, course.page_shards, _say, PAGES), course.pages)
    batches = Batches(world, pages, course.mean, course.std, course.name)
    begins = course.sighted and not (folder / STATE).exists()  # who goes on sees already
    sight = read_sight(_sight(folder.parent / _SIGHT, images)) if begins else None
    schedule = Schedule(course.rate, steps or course.steps)
    return Trainer(course.begin(batches, sight), batches, schedule, folder, course.slow)


def _sight(folder: Path, images: Path) -> Path:
    """The state of the vision encoder that a sighted course begins with, trained to its end if it is not yet."""
    running = trainer(course_of(_SIGHT), folder, images)
    running.resume()
    running.run(running.schedule.steps, _say)
    return folder / STATE


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, save, export."""
    options = _parser(list(FOLDERS)).parse_args(arguments)
    torch.set_num_threads(1)  # one process a model: threads that wait for each other cost more than they bring
    folder = options.folder or Path("build/miniatures") / options.model
    if (folder / STATE).exists() and not (options.resume or options.export):
        print(f"{folder} holds a state: add --resume to go on, or name another --folder.", file=sys.stderr)
        return 2
    course = course_of(options.model)
    running = trainer(course, folder, options.images or folder.parent / "images", options.steps)
    if running.resume():
        _say(f"going on from step {running.step}")
    elif options.export:
        print(f"{folder} holds no state to export: train first.", file=sys.stderr)
        return 2
    if not options.export:
        running.run(running.schedule.steps, _say)
    publish(course, running, folder / "export")
    return 0


def publish(course: Course, running: Trainer, folder: Path) -> None:
    """Write the checkpoint and its card; of a course that nobody serves, nothing."""
    if course.name == _SIGHT:
        return
    folder.mkdir(parents=True, exist_ok=True)
    running.lesson.export(folder)
    pack(folder)
    write_card(folder, course.name, running.step, course.batch)
    _say(f"wrote {folder}")


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("model", choices=names)
    parser.add_argument("--steps", type=int, help="in all, those before an interruption included")
    parser.add_argument("--folder", type=Path, help="for state, log, curve and export (build/miniatures/<model>)")
    parser.add_argument("--images", type=Path, help="where drawn images are kept (beside the folder)")
    parser.add_argument("--resume", action="store_true", help="go on from the folder's state, if there is one")
    parser.add_argument("--export", action="store_true", help="write the checkpoint as the state has it, and stop")
    return parser


def _say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
