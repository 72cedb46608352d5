"""BLIP's only task, the caption, and the text that the caption begins with.

A prompt is not an instruction: it is the beginning of the caption, verbatim. Source: the model card of
Salesforce/blip-image-captioning-large.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlm.models.tasks import ignored_fields, text_of, unsupported_task
from vlm.types import Request, TaskResolution

OFFERED: tuple[str, ...] = ("caption",)


@dataclass(frozen=True, slots=True)
class ResolvedTask:
    """What a request means.

    Attributes:
        prefix: The text that the caption begins with; "" for none.
        resolution: How the task was found.
        ignored: Paths of the request's fields that play no part.
    """

    prefix: str
    resolution: TaskResolution
    ignored: tuple[str, ...] = ()


def resolve_task(request: Request) -> ResolvedTask:
    """Find the prefix: the text of a named task, else the prompt. Raises UnsupportedTask for other tasks."""
    if request.task is None:
        return ResolvedTask(request.prompt, "native" if request.prompt.strip() else "default")
    if request.task.name not in OFFERED:
        raise unsupported_task("BLIP", request.task.name, OFFERED)
    ignored = ignored_fields(request.task, request.prompt, {"text"})
    return ResolvedTask(text_of(request.task, request.prompt), "task", ignored)
