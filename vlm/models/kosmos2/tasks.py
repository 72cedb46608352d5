"""Kosmos-2's tasks: the prompt of each, and which one a request means.

The prompts are those of the model card of microsoft/kosmos-2-patch14-224.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from vlm.models.kosmos2.parsing import cells_of
from vlm.models.kosmos2.vocabulary import CELLS, TAGS
from vlm.models.native_prompts import foreign_task
from vlm.models.tasks import ignored_fields, missing_argument, text_of, unsupported_task
from vlm.types import Box, Request, Task, TaskResolution

BRIEF = "<grounding>An image of"
DETAILED = "<grounding>Describe this image in detail:"

OFFERED: tuple[str, ...] = ("caption", "detect", "ground", "query", "region_caption")

_SLOT = "{}"
_PHRASE = "<grounding><phrase>{}</phrase>"
_QUESTION = "Question: {} Answer:"
_UNTAGGED = re.compile(r"An image of|Describe this image in detail:|Question:.*Answer:", re.DOTALL)
_KINDS = (
    (re.compile(r"(?:<grounding>)?\s*Question:.*", re.DOTALL), "query"),
    (re.compile(r"(?:<grounding>)?\s*<phrase>[^<]*</phrase>\s*<object>.*", re.DOTALL), "region_caption"),
    (re.compile(r"(?:<grounding>)?\s*<phrase>[^<]*</phrase>\s*"), "ground"),
)
_USED = {
    "caption": {"length", "threshold"},
    "detect": {"labels", "threshold"},
    "ground": {"text", "threshold"},
    "query": {"text"},
    "region_caption": {"region", "threshold"},
}
"""Which fields of a Task each task uses."""


@dataclass(frozen=True, slots=True)
class ResolvedTask:
    """What a request means.

    Attributes:
        task: Canonical name.
        template: What the model reads, tags included; ``{}`` stands for ``text``.
        text: A client's text, in which nothing is a tag; None where the template has no ``{}``.
        resolution: How the task was found.
        echo: Whether the answer's text begins with the prompt's.
        ignored: Paths of the request's fields that are not used.
    """

    task: str
    template: str
    text: str | None
    resolution: TaskResolution
    echo: bool = True
    ignored: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """All that the model reads, as one text."""
        return self.template if self.text is None else self.template.replace(_SLOT, self.text)

    @property
    def parts(self) -> tuple[str, str, str]:
        """The prompt before the client's text, that text, and the prompt after it."""
        if self.text is None:
            return self.template, "", ""
        before, _, after = self.template.partition(_SLOT)
        return before, self.text, after


def resolve_task(request: Request) -> ResolvedTask:
    """Find the task: a named one, else a prompt of the model card or one with tags; any other prompt is a question,
    unless it names a task as another model does.

    Raises:
        UnsupportedTask: Kosmos-2 does not have the task; the message lists those that it has.
        InvalidRequest: An argument is missing.
    """
    if request.task is not None:
        return _named(request.task, request.prompt)
    prompt = request.prompt
    if not prompt.strip():
        return ResolvedTask("caption", BRIEF, None, "default")
    if TAGS.search(prompt) or _UNTAGGED.fullmatch(prompt.strip()):
        return ResolvedTask(_kind(prompt.strip()), prompt, None, "native")
    foreign = foreign_task("kosmos2", prompt)
    if foreign is not None:
        return replace(_named(foreign, ""), resolution="foreign")
    return ResolvedTask("query", _QUESTION, prompt.strip(), "plain", echo=False)


def _kind(prompt: str) -> str:
    return next((name for pattern, name in _KINDS if pattern.fullmatch(prompt)), "caption")


def _named(task: Task, prompt: str) -> ResolvedTask:
    if task.name not in OFFERED:
        raise unsupported_task("Kosmos-2", task.name, OFFERED)
    ignored = ignored_fields(task, prompt, _USED[task.name])
    match task.name:
        case "caption":
            # "An image of" begins a caption; "Describe this image in detail:" is an instruction and not part of one.
            brief = task.length == "short"
            prompt = BRIEF if brief else DETAILED
            return ResolvedTask(task.name, prompt, None, "task", echo=brief, ignored=ignored)
        case "region_caption":
            return ResolvedTask(task.name, _region_prompt(task.region), None, "task", ignored=ignored)
        case "detect":
            return ResolvedTask(task.name, _PHRASE, _label(task.labels), "task", ignored=ignored)
        case "ground":
            return ResolvedTask(task.name, _PHRASE, _text(task, prompt, "phrase to find"), "task", ignored=ignored)
    return ResolvedTask(task.name, _QUESTION, _text(task, prompt, "question"), "task", echo=False, ignored=ignored)


def _text(task: Task, prompt: str, what: str) -> str:
    text = text_of(task, prompt).strip()
    if not text:
        raise missing_argument(task.name, "text", f"a text: the {what}")
    return text


def _label(labels: tuple[str, ...]) -> str:
    """The label of one generation: the engine asks about several one by one."""
    if len(labels) != 1 or not labels[0].strip():
        raise missing_argument("detect", "labels", "labels: what to look for, no label blank")
    return labels[0].strip()


def _region_prompt(region: Box | None) -> str:
    if region is None:
        raise missing_argument("region_caption", "region", "a region: the part of the image to describe")
    first, last = (CELLS[cell] for cell in cells_of(region))
    return f"<grounding><phrase>It</phrase><object>{first}{last}</object> is"
