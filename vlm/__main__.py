"""The library from the shell: ``python -m vlm CHECKPOINT [IMAGE...] [--task NAME] [--prompt TEXT]``.

Owns the command line, what it prints, and its exit codes (0 all answered, 1 a failure, 2 bad input, 130 interrupted).
All images go into one engine at once; answers come out in the order in which the images were named. Without one,
the prompt alone is asked.
Knows no model: the checkpoint says what it is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, Protocol

from vlm.errors import EngineFailure, InvalidImage, InvalidRequest, VlmError
from vlm.grounding_json import to_json
from vlm.image.annotate import draw
from vlm.image.decode import decode
from vlm.types import Box, Completion, Detection, Grounding, Point, Request, Sampling, Task

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
AT_ONCE = 128  # images in the engine: enough to fill its batch, few enough to be held in memory
DRAWABLE = (".png", ".jpg", ".jpeg", ".webp")

Corners = tuple[float, float, float, float]


class Answering(Protocol):
    """What this program needs of an engine."""

    async def complete(self, request: Request) -> Completion:
        """The whole answer; raises a VlmError where there is none."""
        ...


OpenEngine = Callable[[argparse.Namespace], AbstractContextManager[Answering]]


@dataclass(frozen=True, slots=True)
class Question:
    """What every image is asked; ``region`` as it was typed, normalised or in pixels."""

    prompt: str
    task: Task | None
    region: Corners | None
    sampling: Sampling

    def about(self, image: bytes | None) -> Request:
        """The question about one encoded image, or about none."""
        task = self.task
        if task is not None and self.region is not None:
            task = replace(task, region=_region_of(self.region, image))
        return Request(image, self.prompt, task, self.sampling)


def main(argv: Sequence[str] | None = None, open_engine: OpenEngine | None = None) -> int:
    """Run the command line ``argv`` and return its exit code; ``open_engine`` replaces loading the checkpoint."""
    options = _options(argv)
    try:
        question = _question(options)
        opening = (open_engine or _load)(options)
        return asyncio.run(_answer_all(opening, question, options))
    except VlmError as error:
        return _report(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains while it exits
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


# Reading the command line.


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"error: {message}\n")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(argv)
    if not options.images and not options.prompt.strip():
        parser.error("name an image, or ask without one: --prompt TEXT")
    if not options.images and options.draw:
        parser.error("--draw needs an image to draw on")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m vlm", description="Ask a vision-language model about images.")
    parser.add_argument("checkpoint", help="folder of a checkpoint, or its id on the Hugging Face hub")
    parser.add_argument(
        "images", nargs="*", metavar="image", help="PNG, JPEG, WebP, GIF or BMP file; some models answer without one"
    )
    _add_question(parser)
    _add_sampling(parser)
    parser.add_argument("--revision", help="full commit hash of the checkpoint on the hub")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--json", action="store_true", help="print one JSON object per image and line")
    parser.add_argument("--draw", type=_drawable, metavar="OUT.png", help="write the image with what was found on it")
    return parser


def _add_question(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", default="", help="native prompt, caption prefix, text to ground or question")
    parser.add_argument("--task", help="caption, detect, ground, ocr, ...; without it the prompt decides")
    parser.add_argument("--label", action="append", default=[], help="what the task looks for (may be repeated)")
    parser.add_argument("--region", type=_corners, metavar="X1,Y1,X2,Y2", help="where to look: 0 to 1, or pixels")
    parser.add_argument("--length", choices=("short", "normal", "long"), help="length of a caption")


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--temperature", type=float, help="0 is greedy")
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--max-tokens", type=int)


def _corners(text: str) -> Corners:
    try:
        x_min, y_min, x_max, y_max = (float(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError("takes four numbers: x1,y1,x2,y2") from None
    if not (0 <= x_min < x_max < float("inf") and 0 <= y_min < y_max < float("inf")):
        raise argparse.ArgumentTypeError("needs 0 <= x1 < x2 and 0 <= y1 < y2")
    return x_min, y_min, x_max, y_max


def _drawable(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in DRAWABLE:
        raise argparse.ArgumentTypeError(f"needs a file name that ends in one of {', '.join(DRAWABLE)}")
    return path


def _question(options: argparse.Namespace) -> Question:
    if options.task is None and (options.label or options.region or options.length):
        raise InvalidRequest("--label, --region and --length belong to a task: name it with --task")
    sampling = Sampling(
        max_tokens=options.max_tokens, temperature=options.temperature, top_p=options.top_p, seed=options.seed
    )
    if options.task is None:
        return Question(options.prompt, None, None, sampling)
    task = Task(options.task, tuple(options.label))  # its text is the prompt, as models read it
    if options.length is not None:
        task = replace(task, length=options.length)
    return Question(options.prompt, task, options.region, sampling)


def _region_of(corners: Corners, image: bytes | None) -> Box:
    """The typed region as a normalised box: any value above 1 means that all four are pixels."""
    in_pixels = max(corners) > 1
    if in_pixels and image is None:
        raise InvalidRequest("a region in pixels needs an image", param="region")
    width, height = decode(image).size if in_pixels and image is not None else (1, 1)
    x_min, y_min, x_max, y_max = corners
    if x_max > width or y_max > height:
        raise InvalidRequest(f"the region reaches outside the image of {width} x {height} pixels", param="region")
    return Box(x_min / width, y_min / height, x_max / width, y_max / height)


# Asking.


def _load(options: argparse.Namespace) -> AbstractContextManager[Answering]:
    from vlm.engine.config import EngineConfig  # here, so that --help and usage errors do not wait for torch
    from vlm.engine.engine import Engine
    from vlm.loading import load

    loaded = load(
        options.checkpoint,
        revision=options.revision,
        dtype=options.dtype,
        device=options.device,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    return Engine(loaded, EngineConfig())


async def _answer_all(
    opening: AbstractContextManager[Answering], question: Question, options: argparse.Namespace
) -> int:
    room = asyncio.Semaphore(AT_ONCE)
    with opening as engine:  # within the event loop, which so outlives the engine even if this is interrupted
        images = options.images or [None]
        answers = [asyncio.create_task(_answer(engine, question, image, room)) for image in images]
        codes = [_show(await answer, index, options) for index, answer in enumerate(answers)]
    return FAILED if FAILED in codes else max(codes)


async def _answer(
    engine: Answering, question: Question, image: str | None, room: asyncio.Semaphore
) -> Completion | VlmError:
    """The answer about one image; its error is a value, so that the other images keep their answers."""
    try:
        async with room:
            return await engine.complete(question.about(None if image is None else _read(Path(image))))
    except VlmError as error:
        return error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidImage(f"the file cannot be read ({error.strerror})") from error


# Showing.


def _show(answer: Completion | VlmError, index: int, options: argparse.Namespace) -> int:
    """Print the answer about image number ``index``, draw it if asked, and return the exit code it calls for."""
    image = options.images[index] if options.images else None
    several = len(options.images) > 1
    if options.json:
        print(json.dumps({"image": image, **_as_json(answer)}, ensure_ascii=False), flush=True)
    if isinstance(answer, VlmError):
        return _report(answer, image)
    if answer.ignored:
        about = f"{image}: " if image else ""
        print(f"note: {about}this task does not use {', '.join(answer.ignored)}", file=sys.stderr)
    if not options.json:
        print("\n".join(_lines(answer, image if several else None)), flush=True)
    if options.draw is None or image is None:
        return 0
    return _draw(answer.grounding, image, _numbered(options.draw, index + 1) if several else options.draw)


def _report(error: VlmError, image: str | None = None) -> int:
    print(f"error: {image}: {error}" if image else f"error: {error}", file=sys.stderr, flush=True)
    return BAD_INPUT if isinstance(error, InvalidRequest) else FAILED


def _as_json(answer: Completion | VlmError) -> dict[str, Any]:
    if isinstance(answer, VlmError):
        return {"error": {"message": answer.message, "param": answer.param, "code": answer.code}}
    return {
        "text": answer.text,
        "token_ids": list(answer.token_ids),
        "grounding": to_json(answer.grounding),
        "finish_reason": answer.finish_reason,
        "usage": asdict(answer.usage),
        "timings": asdict(answer.timings),
    }


def _lines(answer: Completion, image: str | None) -> list[str]:
    """The words, or one line per thing found; under the image's name where there are several images."""
    found = answer.grounding.detections
    if not found:
        words = answer.text or "nothing found"
        return [f"{image}: {words}" if image else words]
    names = [" ".join((thing.label or thing.text or "-").split()) for thing in found]
    width = max(len(name) for name in names)
    lines = [
        f"{name:<{width}}  {_pixels(thing, answer.grounding.image_size or (1, 1))}"
        for name, thing in zip(names, found, strict=True)
    ]
    return [f"{image}:", *(f"  {line}" for line in lines)] if image else lines


def _pixels(thing: Detection, size: tuple[int, int]) -> str:
    box, point = thing.box, thing.point
    places = (point,) if point or not box else (Point(box.x_min, box.y_min), Point(box.x_max, box.y_max))
    numbers = [value for place in places if place for value in (place.x * size[0], place.y * size[1])]
    return " ".join(f"{round(number):>5}" for number in numbers)


def _numbered(path: Path, number: int) -> Path:
    return path.with_stem(f"{path.stem}-{number}")


def _draw(grounding: Grounding, source: str, path: Path) -> int:
    image = draw(decode(Path(source).read_bytes()), grounding)
    try:
        image.save(path)
    except OSError as error:
        return _report(EngineFailure(f"{path} cannot be written ({error.strerror or 'the encoder failed'})"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
