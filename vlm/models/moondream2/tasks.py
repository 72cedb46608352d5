"""Moondream 2's tasks: which one a request means, and with which arguments.

The model has no prompts of its own that a client could write: a prompt is a question.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vlm.errors import InvalidRequest
from vlm.models.native_prompts import foreign_task
from vlm.models.tasks import ignored_fields, missing_argument, missing_image, text_of, unsupported_task
from vlm.types import Box, CaptionLength, Point, Request, Task, TaskResolution

OFFERED: tuple[str, ...] = ("caption", "detect", "ground", "point", "query")

MAX_OBJECTS = 50
"""Maximum number of objects, unless the request has its own."""

_USED = {
    "caption": {"length"},
    "detect": {"labels", "max_objects", "threshold"},
    "ground": {"text", "max_objects", "threshold"},
    "point": {"labels", "max_objects", "threshold"},
    "query": {"text", "reasoning", "references"},
}
"""Which fields of a Task each task uses."""
_NATIVE = {"ground": "detect"}
_LENGTHS = ("short", "normal", "long")


@dataclass(frozen=True, slots=True)
class ResolvedTask:
    """What a request means.

    Attributes:
        task, native: Its canonical name, and the model's own.
        text: The question, or what to look for; "" for a caption.
        resolution: How the task was found.
        length: Length of a caption.
        max_objects: Maximum number of objects.
        reasoning: Whether the model reasons before it answers.
        references: Points and boxes that the question is about.
        ignored: Paths of the request's fields that are not used.
    """

    task: str
    native: str
    text: str
    resolution: TaskResolution
    length: CaptionLength = "normal"
    max_objects: int = MAX_OBJECTS
    reasoning: bool = False
    references: tuple[Point | Box, ...] = ()
    ignored: tuple[str, ...] = ()


def resolve_task(request: Request) -> ResolvedTask:
    """Find the task: a named one, else the prompt is a question or names a task as another model does; else a caption.

    Raises:
        UnsupportedTask: Moondream 2 does not have the task; the message lists those that it has.
        InvalidRequest: An argument is missing or invalid, or the task needs an image.
    """
    resolved = _resolved(request)
    if request.image is None and (resolved.task != "query" or resolved.references):
        purpose = "a question with references" if resolved.task == "query" else f"the task {resolved.task!r}"
        raise missing_image("Moondream 2", purpose)
    return resolved


def _resolved(request: Request) -> ResolvedTask:
    if request.task is not None:
        return _named(request.task, request.prompt)
    foreign = foreign_task("moondream2", request.prompt)
    if foreign is not None:
        return replace(_named(foreign, ""), resolution="foreign")
    if request.prompt.strip():
        return ResolvedTask("query", "query", request.prompt, "plain")
    return ResolvedTask("caption", "caption", "", "default")


def _named(task: Task, prompt: str) -> ResolvedTask:
    if task.name not in OFFERED:
        raise unsupported_task("Moondream 2", task.name, OFFERED)
    if task.length not in _LENGTHS:
        raise InvalidRequest("length must be short, normal or long.", param="task.length", code="invalid_value")
    used = _USED[task.name]
    reasoning = task.reasoning and "reasoning" in used
    return ResolvedTask(
        task=task.name,
        native=_NATIVE.get(task.name, task.name),
        text=_text(task, prompt),
        resolution="task",
        length=task.length,
        max_objects=_max_objects(task),
        reasoning=reasoning,
        references=task.references if "references" in used else (),
        ignored=ignored_fields(task, prompt, used | {"threshold"} if reasoning else used),  # its points have scores
    )


def _text(task: Task, prompt: str) -> str:
    """The label, text or question exactly as the client wrote it: the model was trained on text as it comes."""
    used = _USED[task.name]
    if "labels" in used:
        if len(task.labels) != 1 or not task.labels[0].strip():  # the engine asks about several labels one by one
            raise missing_argument(task.name, "labels", "labels: what to look for, no label blank")
        return task.labels[0]
    if "text" in used:
        text = text_of(task, prompt)
        if not text.strip():
            what = "question" if task.name == "query" else "phrase to find"
            raise missing_argument(task.name, "text", f"a text: the {what}")
        return text
    return ""


def _max_objects(task: Task) -> int:
    count = MAX_OBJECTS if task.max_objects is None else task.max_objects
    if count < 1:
        raise InvalidRequest("max_objects must be at least 1.", param="task.max_objects", code="invalid_value")
    return count
