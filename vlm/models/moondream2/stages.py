"""What each step of an answer is: the choice of a token, or the reading of a place.

A pure function of what was asked and what has been written, so that nothing has to be remembered beside the ids. Knows
no tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, auto

from vlm.models.processor import Inputs


class Stage(IntEnum):
    """What a row is at."""

    FIRST = auto()
    """The first token of an answer: any."""
    ANSWER = auto()
    """A further token of an answer, which is not the answer mark."""
    FIRST_THOUGHT = auto()
    """The first token of what is thought."""
    THOUGHT = auto()
    """A further one, which is neither the end nor a size; it may be a coordinate."""
    ENOUGH = auto()
    """Time to answer: the answer mark, whatever the model would say."""
    NEXT_OBJECT = auto()
    """The end, or else the x of a further object."""
    Y = auto()
    """The y of that object."""
    SIZE = auto()
    """Its width and height."""


CHOOSING = frozenset({Stage.FIRST, Stage.ANSWER, Stage.FIRST_THOUGHT, Stage.THOUGHT, Stage.NEXT_OBJECT})
"""Stages that need the words' logits."""

THINKING = frozenset({Stage.FIRST_THOUGHT, Stage.THOUGHT})

PLACING = frozenset({Stage.FIRST_THOUGHT, Stage.THOUGHT, Stage.NEXT_OBJECT, Stage.Y, Stage.SIZE})
"""Stages that may write a place."""

OBJECTS = {
    "detect": (Stage.NEXT_OBJECT, Stage.Y, Stage.SIZE),
    "point": (Stage.NEXT_OBJECT, Stage.Y),
}
"""The steps of one object, by the model's own name of the task."""


def stage(inputs: Inputs, generated: Sequence[int], answer: int) -> Stage:
    """What comes next; ``answer`` is the id of the answer mark."""
    steps = OBJECTS.get(inputs.native_task)
    if steps is not None:
        return steps[len(generated) % len(steps)]
    if inputs.max_reasoning_tokens is None:
        return Stage.ANSWER if generated else Stage.FIRST
    if answer in generated:
        return Stage.FIRST if generated.index(answer) == len(generated) - 1 else Stage.ANSWER
    if len(generated) >= inputs.max_reasoning_tokens:
        return Stage.ENOUGH
    return Stage.THOUGHT if generated else Stage.FIRST_THOUGHT
