"""Rewrites messages of the library for the command line: names of options replace the names of request fields."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vlm.errors import VlmError

EXAMPLES = {
    "task": "--task detect",
    "task.name": "--task detect",
    "prompt": "--prompt TEXT",
    "task.text": "--prompt TEXT",
    "task.labels": "--label dog",
    "task.region": "--region 0.1,0.2,0.5,0.6",
    "task.length": "--length short",
    "task.max_objects": "--max-objects 10",
    "task.threshold": "--threshold 0.05",
    "task.reasoning": "--reasoning",
    "task.references": "--reference 0.3,0.4",
    "temperature": "--temperature 0",
    "top_p": "--top-p 0.9",
    "seed": "--seed 1",
    "max_tokens": "--max-tokens 100",
    "num_beams": "--beams 1",
}
"""An example of the option for each request field, by the field's path."""

_FIELD = re.compile(r"\b(task\.[a-z_]+|num_beams|max_tokens|top_p)\b")


def option(field: str) -> str:
    """The option that sets a request field (``"task.region"``); the field's own name where there is none."""
    return EXAMPLES[field].split(" ")[0] if field in EXAMPLES else field


def options_of(fields: Sequence[str]) -> str:
    """Several fields as a list of options."""
    return ", ".join(option(field) for field in fields)


def in_shell_words(error: VlmError) -> str:
    """The error's message with options instead of request fields. It names the option at fault at least once."""
    message = _FIELD.sub(lambda field: option(field[1]), error.message)
    example = EXAMPLES.get(error.param or "")
    if example is None:
        return message
    name = example.split(" ")[0]
    bare = name.removeprefix("--")
    if message.startswith(f"{bare} "):
        return f"--{message}"
    return message if name in message else f"{message} ({example})"
