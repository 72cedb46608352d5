"""Makes the gallery: asks the miniatures, annotates the images with their answers, and writes README.md beside them.

.venv/bin/python docs/generate/gallery.py             everything, into docs/gallery/
.venv/bin/python docs/generate/gallery.py --into DIR  into another folder

The same checkpoints give the same files. A model without a miniature is left out. The images that are asked about are
those of ``.venv/bin/python docs/generate/images.py``.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that a checkout works without being installed

from PIL import Image

from docs.generate.gallery_page import Entry, render_page
from docs.generate.images import png
from docs.generate.questions import QUESTIONS, Question
from router.asgi.validation import validated
from router.conversation.fields import TaskBody
from router.conversation.tasks import read_task
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.image.annotate import draw
from vlm.loading import load
from vlm.types import Box, Detection, Grounding, Request, Task

ROOT = Path(__file__).resolve().parents[2]
PALETTE_SIZE = 48
"""Colours in a file: enough for flat shapes, lines and text, and a palette makes small files."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = _parser().parse_args(argv)
    gallery: Path = options.into
    gallery.mkdir(parents=True, exist_ok=True)
    entries = answer_all(questions())
    for entry in entries:
        _save(annotated(entry), gallery / entry.question.file)
    (gallery / "README.md").write_text(render_page(entries), "utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Make the images of every task again, and the page that shows them.")
    parser.add_argument("--into", type=Path, default=ROOT / "docs/gallery", help="folder to write to")
    return parser


def questions() -> list[Question]:
    """The questions to models that have a miniature."""
    return [question for question in QUESTIONS if _checkpoint(question.model).is_dir()]


def _checkpoint(model: str) -> Path:
    return ROOT / "miniatures" / model


def answer_all(asked: Sequence[Question]) -> list[Entry]:
    """Each question with the answer of its model's miniature; each model is loaded once."""
    entries: list[Entry] = []
    for model, group in groupby(asked, key=lambda question: question.model):
        entries += asyncio.run(_answer_group(model, list(group)))
    return entries


async def _answer_group(model: str, asked: Sequence[Question]) -> list[Entry]:
    loaded = load(_checkpoint(model), dtype="float32", device="cpu")
    with Engine(loaded, EngineConfig(cache_bytes=64 * 1024**2)) as engine:
        answers = await asyncio.gather(*(engine.complete(_request(question)) for question in asked))
    return [Entry(question, answer) for question, answer in zip(asked, answers, strict=True)]


def _request(question: Question) -> Request:
    return Request(png(question.image.render()), task=task_of(question))


def task_of(question: Question) -> Task:
    """The task as the router reads it from a request's body."""
    return read_task(validated(TaskBody, question.task), "task", lambda: question.image.size)


def annotated(entry: Entry) -> Image.Image:
    """The image with the answer on it."""
    return draw(entry.question.image.render(), _shown(entry))


def _shown(entry: Entry) -> Grounding:
    """The objects that were found; if the answer is text, the text as the label of the region or the whole image."""
    grounding, region = entry.answer.grounding, task_of(entry.question).region
    if not entry.answer.has_text or (grounding.detections and region is None):
        return grounding
    tag = Detection("box", label=entry.answer.text, box=region or Box(0, 0, 1, 1))
    return Grounding(grounding.task, grounding.native_task, grounding.text, grounding.image_size, (tag,))


def _save(image: Image.Image, path: Path) -> None:
    path.write_bytes(png(image.quantize(PALETTE_SIZE, dither=Image.Dither.NONE).convert("RGB")))


if __name__ == "__main__":
    main()
