"""How many generations a request takes, and how many places each of them.

The engine takes the places of a request, and the router lets it in, by what is counted here.
"""

from __future__ import annotations

from dataclasses import replace

from vlm.errors import InvalidRequest
from vlm.types import Request

MAX_GENERATIONS = 64
"""Maximum number of generations of one request: one for each image, each task, and each label of a task."""

PER_LABEL = frozenset(("detect", "point"))
"""Tasks that take one generation for each label."""


def is_compound(request: Request) -> bool:
    """Whether the request takes several generations, or its answer has parts."""
    return bool(request.images or request.tasks) or len(labels_of(request)) > 1


def generations(request: Request) -> int:
    """Number of single requests that the request is split into; each choice of an answer is one."""
    return sum(map(generations, split(request))) if is_compound(request) else request.n


def check_generations(request: Request) -> None:
    """Raise InvalidRequest if the request takes more than MAX_GENERATIONS, or several of more than one kind."""
    if request.n > 1 and is_compound(request):
        raise InvalidRequest(
            "n above 1 cannot be combined with several tasks, labels or images, whose answers come together as one "
            "choice: set n to 1, or send a request for each of them.",
            param="n",
            code="invalid_value",
        )
    count = generations(request)
    if count > MAX_GENERATIONS:
        raise InvalidRequest(
            f"The request takes {count} generations, one for each image, task and label; at most {MAX_GENERATIONS} "
            "are answered together. Send several requests.",
            param=field_of(request),
            code="invalid_value",
        )


def field_of(request: Request) -> str:
    """The field that asks for several generations."""
    if request.n > 1:
        return "n"
    if request.tasks:
        return "tasks"
    return "images" if request.images and len(labels_of(request)) < 2 else "task.labels"


def split(request: Request) -> tuple[Request, ...]:
    """One request for each image, else for each task, else for each label; the request itself if it asks one thing."""
    if request.images:
        return tuple(replace(request, image=image, images=()) for image in request.images)
    if request.tasks:
        return tuple(replace(request, task=task, tasks=()) for task in request.tasks)
    labels = labels_of(request)
    if request.task is None or len(labels) < 2:
        return (request,)
    return tuple(replace(request, task=replace(request.task, labels=(label,))) for label in labels)


def labels_of(request: Request) -> tuple[str, ...]:
    """The labels that take a generation each; a label that is named twice takes one."""
    task = request.task
    return tuple(dict.fromkeys(task.labels)) if task is not None and task.name in PER_LABEL else ()


def label_of(request: Request) -> str | None:
    """The label of a request for one generation, as the client wrote it; None if it asks for none."""
    return next(iter(labels_of(request)), None)


def places_for(beams: int, slots: int, rows: int) -> int:
    """Number of places that a generation with so many beams takes in an engine of so many slots and rows.

    Where rows are planned for three beams a slot, a search with eight takes three places.
    """
    return max(1, -(-beams * slots // rows))
