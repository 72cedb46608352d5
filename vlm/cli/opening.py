"""The engine for a command, opened only after the question was checked against the model and its processor."""

from __future__ import annotations

import sys

from vlm.cli.arguments import Command
from vlm.cli.question import Question
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.engine.prepare import check_beams
from vlm.image.sample import sample_image
from vlm.loading import build_processor, find_family, load, open_checkpoint
from vlm.models.processor import Processor


def open_engine(command: Command) -> Engine:
    """Load the checkpoint, unless the question cannot be answered, which is found out before the weights are read.

    Raises:
        InvalidRequest: Also as UnsupportedTask: the model has no such task, lacks an argument, or has no beam search.
        CheckpointError: The checkpoint cannot be loaded.
    """
    checkpoint = open_checkpoint(
        command.checkpoint, command.revision, lambda line: print(line, file=sys.stderr, flush=True)
    )
    name, family = find_family(checkpoint)
    check_question(build_processor(name, family, checkpoint), command.question, with_image=bool(command.paths))
    check_beams(family.empty(checkpoint.config), command.question.sampling.num_beams or 1)
    return Engine(load(checkpoint, dtype=command.dtype, device=command.device), EngineConfig())


def check_question(processor: Processor, question: Question, *, with_image: bool) -> None:
    """Prepare the question about a made-up image. Raises what the processor raises."""
    image = sample_image(0) if with_image else None
    processor.prepare((question.without_pixels() if with_image else question).about(image))
