"""Moondream 2's tasks: which one a request means.

Owns the arguments of each task. Knows nothing of token ids. The model has no prompts of its own that a client could
write: words are a question.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlm.errors import InvalidRequest, UnsupportedTask
from vlm.types import Box, CaptionLength, Point, Request, Task, TaskResolution

OFFERED: tuple[str, ...] = ("caption", "detect", "ground", "point", "query")

MAX_OBJECTS = 50
"""Most objects that are looked for unless the request says otherwise."""

_USED = {
    "caption": {"length"},
    "detect": {"labels", "max_objects", "threshold"},
    "ground": {"text", "max_objects", "threshold"},
    "point": {"labels", "max_objects", "threshold"},
    "query": {"text", "reasoning", "references"},
}
_NATIVE = {"ground": "detect"}
_LENGTHS = ("short", "normal", "long")


@dataclass(frozen=True, slots=True)
class ResolvedTask:
    """What a request means.

    Attributes:
        task, native: By its canonical name and by the model's own.
        words: The question, or what to look for; "" for a caption.
        resolution: How it was found.
        length: Of a caption.
        max_objects: Most objects to look for.
        reasoning: Whether to think first.
        references: Places that the question is about.
        ignored: Request fields that play no part.
    """

    task: str
    native: str
    words: str
    resolution: TaskResolution
    length: CaptionLength = "normal"
    max_objects: int = MAX_OBJECTS
    reasoning: bool = False
    references: tuple[Point | Box, ...] = ()
    ignored: tuple[str, ...] = ()


def resolve_task(request: Request) -> ResolvedTask:
    """Find the task: a named one, else the prompt's words are a question, else a caption is wanted.

    Raises:
        UnsupportedTask: A task that Moondream 2 does not have; the message lists those offered.
        InvalidRequest: An argument is missing, or needs an image.
    """
    asked = _asked(request)
    if request.image is None and (asked.task != "query" or asked.references):
        what = "a question about places" if asked.task == "query" else f"the task {asked.task!r}"
        raise InvalidRequest(f"Moondream 2 needs an image for {what}.", param="image", code="invalid_value")
    return asked


def _asked(request: Request) -> ResolvedTask:
    if request.task is not None:
        return _named(request.task, request.prompt)
    if request.prompt.strip():
        return ResolvedTask("query", "query", request.prompt, "plain")
    return ResolvedTask("caption", "caption", "", "default")


def _named(task: Task, prompt: str) -> ResolvedTask:
    if task.name not in OFFERED:
        raise UnsupportedTask(
            f"Moondream 2 has no task {task.name!r}; it offers: {', '.join(OFFERED)}.",
            param="task",
            code="unsupported_task",
        )
    if task.length not in _LENGTHS:
        raise InvalidRequest("task.length must be short, normal or long.", param="task.length", code="invalid_value")
    used = _USED[task.name]
    return ResolvedTask(
        task=task.name,
        native=_NATIVE.get(task.name, task.name),
        words=_words(task, prompt),
        resolution="task",
        length=task.length,
        max_objects=_max_objects(task),
        reasoning=task.reasoning and "reasoning" in used,
        references=task.references if "references" in used else (),
        ignored=_ignored(task, prompt),
    )


def _words(task: Task, prompt: str) -> str:
    """What the model is told, letter for letter: it was trained on words as they come."""
    used = _USED[task.name]
    if "labels" in used:
        if len(task.labels) != 1 or not task.labels[0].strip():
            raise _missing(task.name, "task.labels", "exactly one label a request")
        return task.labels[0]
    if "text" in used:
        words = prompt if task.text is None else task.text
        if not words.strip():
            raise _missing(task.name, "task.text", "the text to work on")
        return words
    return ""


def _max_objects(task: Task) -> int:
    most = MAX_OBJECTS if task.max_objects is None else task.max_objects
    if most < 1:
        raise InvalidRequest("task.max_objects must be at least 1.", param="task.max_objects", code="invalid_value")
    return most


def _ignored(task: Task, prompt: str) -> tuple[str, ...]:
    given = {
        "labels": bool(task.labels),
        "text": task.text is not None,
        "region": task.region is not None,
        "length": task.length != "normal",
        "max_objects": task.max_objects is not None,
        "reasoning": task.reasoning,
        "references": bool(task.references),
        "threshold": task.threshold is not None,
    }
    takes_prompt = "text" in _USED[task.name] and task.text is None
    dropped = ("prompt",) if prompt.strip() and not takes_prompt else ()
    return dropped + tuple(f"task.{name}" for name, there in given.items() if there and name not in _USED[task.name])


def _missing(task: str, param: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"Moondream 2's task {task!r} needs {what}.", param=param, code="invalid_value")
