"""What each step of an answer chooses: a token, or a coordinate or size.

A pure function of the request and the ids generated so far, so that a sequence has no other state.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, auto

from vlm.models.processor import Inputs


class Stage(IntEnum):
    """What the next step of a row chooses."""

    FIRST = auto()
    """The first token of an answer: any."""
    ANSWER = auto()
    """A later token of an answer: any but the answer token."""
    FIRST_REASONING = auto()
    """The first token of reasoning: any but the end of text; it may be a coordinate."""
    REASONING = auto()
    """A later token of reasoning: any but the end of text and the size token; it may be a coordinate."""
    END_REASONING = auto()
    """The answer token, because reasoning has reached its limit."""
    NEXT_OBJECT = auto()
    """The x of another object, or the end of text."""
    Y = auto()
    """The y of that object."""
    SIZE = auto()
    """Its width and height."""


TOKEN_STAGES = frozenset({Stage.FIRST, Stage.ANSWER, Stage.FIRST_REASONING, Stage.REASONING, Stage.NEXT_OBJECT})
"""Stages that need the logits of tokens."""

REASONING_STAGES = frozenset({Stage.FIRST_REASONING, Stage.REASONING})

LOCATION_STAGES = frozenset({Stage.FIRST_REASONING, Stage.REASONING, Stage.NEXT_OBJECT, Stage.Y, Stage.SIZE})
"""Stages that may choose a coordinate or a size."""

OBJECT_STAGES = {
    "detect": (Stage.NEXT_OBJECT, Stage.Y, Stage.SIZE),
    "point": (Stage.NEXT_OBJECT, Stage.Y),
}
"""The steps of one object, by the model's own name of the task."""


def stage(inputs: Inputs, generated: Sequence[int], answer: int) -> Stage:
    """The stage of the step after ``generated``; ``answer`` is the id of the answer token."""
    steps = OBJECT_STAGES.get(inputs.native_task)
    if steps is not None:
        return steps[len(generated) % len(steps)]
    if inputs.max_reasoning_tokens is None:
        return Stage.ANSWER if generated else Stage.FIRST
    if answer in generated:
        return Stage.FIRST if generated.index(answer) == len(generated) - 1 else Stage.ANSWER
    if len(generated) >= inputs.max_reasoning_tokens:
        return Stage.END_REASONING
    return Stage.REASONING if generated else Stage.FIRST_REASONING
