"""The library from the shell: ``python -m vlm CHECKPOINT [IMAGE...] [--task NAME] [--prompt TEXT]``.

The exit code is 0 if all images were answered, 1 after a failure, 2 for bad input, and 130 after an interrupt. One
engine answers about all images concurrently, and the answers are printed in the order of the images. Without an image,
the model is asked the prompt alone.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from vlm.cli.arguments import Command, read_command
from vlm.cli.paths import drawing_paths, find_images, read
from vlm.cli.printing import FAILED, Output, print_error
from vlm.cli.question import Question
from vlm.errors import VlmError
from vlm.types import Completion, Request

INTERRUPTED = 130
AT_ONCE = 128  # maximum number of images in the engine: enough to fill its batch, few enough to hold in memory


class Answering(Protocol):
    """What this program needs of an engine."""

    async def complete(self, request: Request) -> Completion:
        """The whole answer. Raises VlmError if there is none."""
        ...


OpenEngine = Callable[[Command], AbstractContextManager[Answering]]


def main(argv: Sequence[str] | None = None, open_engine: OpenEngine | None = None) -> int:
    """Run the command line ``argv`` and return its exit code; ``open_engine`` replaces loading the checkpoint."""
    try:
        command = read_command(argv)
        images = find_images(command.paths, _note)
        drawings = drawing_paths(command.draw, images) if command.draw else ()
        opening = (open_engine or _open_engine)(command)
        return asyncio.run(_answer_all(opening, Output(command, images, drawings)))
    except VlmError as error:
        return print_error(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python prints an error as it exits
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _open_engine(command: Command) -> AbstractContextManager[Answering]:
    from vlm.cli.opening import open_engine  # imported here so that --help and usage errors do not load torch

    return open_engine(command)


async def _answer_all(opening: AbstractContextManager[Answering], output: Output) -> int:
    gate = asyncio.Semaphore(AT_ONCE)
    question = output.command.question
    # Opened within the event loop, so that the engine closes before the loop does, even after an interrupt.
    with opening as engine:
        images: Sequence[str | None] = output.images or [None]
        answers = [asyncio.create_task(_answer(engine, question, image, gate)) for image in images]
        for index, answer in enumerate(answers):
            output.show(await answer, index)
    return output.finish()


async def _answer(
    engine: Answering, question: Question, image: str | None, gate: asyncio.Semaphore
) -> Completion | VlmError:
    """The answer about one image; an error is returned, so that the other images keep their answers."""
    try:
        async with gate:
            return await engine.complete(question.about(None if image is None else read(image)))
    except VlmError as error:
        return error


if __name__ == "__main__":
    sys.exit(main())
