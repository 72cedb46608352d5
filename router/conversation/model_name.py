"""A model's name in a request: an alias, the operator's ``default``, or a name with a task behind a colon.

``florence-2-base:ocr`` is for chat interfaces, where users can choose a model but cannot send further fields.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.config import RouterConfig
from router.conversation.prompt import Prompt
from vlm.models.cards import canonical_name, cards
from vlm.types import Task

DEFAULT = "default"
"""The name that stands for the operator's choice of a model."""

_TEXT_IS = {"detect": "labels", "point": "labels", "ground": "text", "query": "text", "segment": "text"}
"""The argument that the message's text gives to a task behind a colon; other tasks do not use the text."""


@dataclass(frozen=True, slots=True)
class ModelName:
    """What a request's ``model`` stands for.

    Attributes:
        model: Canonical name.
        task: Name of the task behind the colon, or None.
    """

    model: str
    task: str | None = None


def read_model_name(name: str, config: RouterConfig) -> ModelName:
    """The model, and the task if the name ends in that of one."""
    base, colon, task = name.rpartition(":")
    if not colon or task not in _task_names():
        base, task = name, ""
    if base == DEFAULT and config.default_model is not None:
        base = config.default_model
    return ModelName(canonical_name(base), task or None)


def task_of(name: str, prompt: Prompt) -> Task:
    """The task behind a colon, with the text as its argument; labels are separated by commas or lines."""
    argument = _TEXT_IS.get(name)
    if argument == "labels":
        labels = [label.strip() for line in prompt.text.splitlines() for label in line.split(",")]
        return Task(name, labels=tuple(label for label in labels if label))
    return Task(name, text=prompt.text if argument == "text" else None)


def uses_text(name: str) -> bool:
    """Whether a task behind a colon uses the message's text."""
    return name in _TEXT_IS


def _task_names() -> frozenset[str]:
    return frozenset(task.name for card in cards().values() for task in card.tasks)
