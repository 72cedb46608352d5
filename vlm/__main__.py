"""The library from the shell: ``python -m vlm CHECKPOINT [IMAGE...] [--task NAME] [--prompt TEXT]``.

Exit codes: 0 all answered, 1 a failure, 2 bad input, 130 interrupted. All images go into one engine at once; answers
are printed in the order of the images. Without an image, the prompt alone is the question.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from vlm.cli.arguments import Command, read_command
from vlm.cli.paths import find_images, read
from vlm.cli.printing import FAILED, Output, print_error
from vlm.cli.question import Question
from vlm.errors import VlmError
from vlm.types import Completion, Request

INTERRUPTED = 130
AT_ONCE = 128  # images in the engine: enough to fill its batch, few enough to be held in memory


class Answering(Protocol):
    """What this program needs of an engine."""

    async def complete(self, request: Request) -> Completion:
        """The whole answer; raises a VlmError where there is none."""
        ...


OpenEngine = Callable[[Command], AbstractContextManager[Answering]]


def main(argv: Sequence[str] | None = None, open_engine: OpenEngine | None = None) -> int:
    """Run the command line ``argv`` and return its exit code; ``open_engine`` replaces loading the checkpoint."""
    try:
        command = read_command(argv)
        images = find_images(command.paths, _note)
        opening = (open_engine or _open_engine)(command)
        return asyncio.run(_answer_all(opening, Output(command, images)))
    except VlmError as error:
        return print_error(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains while it exits
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _open_engine(command: Command) -> AbstractContextManager[Answering]:
    from vlm.cli.opening import open_engine  # here, so that --help and usage errors do not import torch

    return open_engine(command)


async def _answer_all(opening: AbstractContextManager[Answering], output: Output) -> int:
    gate = asyncio.Semaphore(AT_ONCE)
    question = output.command.question
    with opening as engine:  # inside the event loop, which then outlives the engine even after an interrupt
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
