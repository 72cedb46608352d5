"""BLIP's only task, the caption, and the text that the caption begins with.

The model takes no instruction: a text is the beginning of the caption, verbatim. Source: the model card of
Salesforce/blip-image-captioning-large.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlm.models.native_prompts import foreign_task
from vlm.models.plain_words import begins_a_caption
from vlm.models.tasks import ignored_fields, text_of, unsupported_task
from vlm.types import Request, Task, TaskResolution

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
    """Find the prefix: the text of a named task, else a prompt that reads as the beginning of a caption.

    Most clients ask questions or give instructions, and the answer would be their own words, continued. Such a prompt
    asks for a caption without a prefix, and is not used.

    Raises:
        UnsupportedTask: The task is not a caption.
        InvalidRequest: The prompt is that of another model, in company.
    """
    prompt = request.prompt
    if request.task is not None:
        return _named(request.task, prompt)
    if foreign_task("blip", prompt) is not None:  # it can only be a caption
        return ResolvedTask("", "foreign")
    if begins_a_caption(prompt):
        return ResolvedTask(prompt, "native")
    return ResolvedTask("", "plain", ("prompt",)) if prompt.strip() else ResolvedTask("", "default")


def _named(task: Task, prompt: str) -> ResolvedTask:
    if task.name not in OFFERED:
        raise unsupported_task("BLIP", task.name, OFFERED)
    if task.text is None and not begins_a_caption(prompt):
        return ResolvedTask("", "task", ignored_fields(task, prompt, ()))
    return ResolvedTask(text_of(task, prompt), "task", ignored_fields(task, prompt, {"text"}))
