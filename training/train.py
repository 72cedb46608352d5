"""Train one of the miniatures: ``python -m training.train NAME``.

Writes the training state into a folder of its own, resumes from it with ``--resume``, and at the end exports the
checkpoint into the subfolder ``export``.
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
from training.data.rendered import PAGES, STACKS, open_images
from training.export import compact
from training.model_card import write_card
from training.recipe import Recipe
from training.trainer import STATE, Schedule, Trainer
from training.vision.transfer import read_vision_weights

_VISION = "vision"
PACKAGES = {
    "florence-2-base": "florence2",
    "blip-large": "blip",
    "kosmos-2": "kosmos2",
    "moondream-2": "moondream2",
    _VISION: "vision",
}
"""The package of each recipe, by the recipe's name."""


def load_recipe(name: str) -> Recipe:
    """The recipe of that name, one of ``PACKAGES``."""
    recipe: Recipe = importlib.import_module(f"{__package__}.{PACKAGES[name]}.recipe").RECIPE
    return recipe


def build_trainer(recipe: Recipe, folder: Path, images: Path, steps: int | None = None) -> Trainer:
    """A trainer at step 0. Renders the training images into ``images``, and pretrains the encoder, where missing."""
    batches = _batches(recipe, images)
    resumes = (folder / STATE).exists()  # the state holds the encoder's weights, too
    pretrained = recipe.pretrained_vision and not resumes
    vision = read_vision_weights(_pretrain_vision(folder.parent / _VISION, images)) if pretrained else None
    schedule = Schedule(recipe.learning_rate, steps or recipe.steps)
    return Trainer(recipe.build(batches, vision), batches, schedule, folder, recipe.slow_parameters)


def _batches(recipe: Recipe, images: Path) -> Batches:
    count = recipe.batch_size
    scenes = open_images(images, recipe.side, recipe.shards, _report)
    world = Source(scenes, count, nested=count // 8, rich=count // 2)

    def source(kind: str, shards: int, per_step: int) -> Source | None:
        return Source(open_images(images, recipe.side, shards, _report, kind), per_step) if per_step else None

    pages = source(PAGES, recipe.page_shards, recipe.pages)
    stacks = source(STACKS, recipe.stack_shards, recipe.stacks)
    return Batches(world, pages, recipe.mean, recipe.std, recipe.seed or recipe.name, stacks)


def _pretrain_vision(folder: Path, images: Path) -> Path:
    """Train the vision encoder to its last step, resuming an interrupted run; returns the file of its state."""
    trainer = build_trainer(load_recipe(_VISION), folder, images)
    trainer.resume()
    trainer.run(trainer.schedule.steps, _report)
    return folder / STATE


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, save and export; returns the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)  # at these sizes, threads cost more in synchronisation than they save
    folder = options.folder or Path("build/miniatures") / options.model
    if (folder / STATE).exists() and not (options.resume or options.export):
        print(f"{folder} holds a training state: add --resume to continue, or give another --folder.", file=sys.stderr)
        return 2
    recipe = load_recipe(options.model)
    trainer = build_trainer(recipe, folder, options.images or folder.parent / "images", options.steps)
    if trainer.resume():
        _report(f"resuming at step {trainer.step}")
    elif options.export:
        print(f"{folder} holds no training state to export: train first.", file=sys.stderr)
        return 2
    if not options.export:
        trainer.run(trainer.schedule.steps, _report)
    if recipe.name != _VISION:  # the encoder alone is not a checkpoint that can be served
        export(recipe, trainer, folder / "export")
    return 0


def export(recipe: Recipe, trainer: Trainer, folder: Path) -> None:
    """Write the checkpoint and its model card."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer.trainable.export(folder)
    compact(folder)
    write_card(folder, recipe.name, trainer.step, recipe.batch_size)
    _report(f"wrote {folder}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("model", choices=list(PACKAGES))
    parser.add_argument("--steps", type=int, help="total number of steps, including those before an interruption")
    parser.add_argument(
        "--folder", type=Path, help="for state, log, loss curve and export (default: build/miniatures/<model>)"
    )
    parser.add_argument("--images", type=Path, help="cache of rendered images (default: images, beside the folder)")
    parser.add_argument("--resume", action="store_true", help="continue from the state in the folder if there is one")
    parser.add_argument(
        "--export", action="store_true", help="export the checkpoint of the saved state without training"
    )
    return parser


def _report(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
