"""Kosmos-2's tasks: the prompts that stand for them, and which one a request means.

Owns the prompts of the model card. Knows nothing of token ids. Source: the card of microsoft/kosmos-2-patch14-224.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vlm.errors import InvalidRequest, UnsupportedTask
from vlm.models.kosmos2.parsing import cells_of
from vlm.models.kosmos2.vocabulary import CELLS, TAGS
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


@dataclass(frozen=True, slots=True)
class ResolvedTask:
    """What a request means.

    Attributes:
        task: Canonical name.
        template: What the model reads; ``{}`` stands for ``words``, and tags are tags.
        words: A client's words, in which nothing is a tag; None where the template is all.
        resolution: How it was found.
        echoes: Whether the answer's text begins with the prompt's.
        ignored: Request fields that play no part.
    """

    task: str
    template: str
    words: str | None
    resolution: TaskResolution
    echoes: bool = True
    ignored: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """All that the model reads, as one text."""
        return self.template if self.words is None else self.template.replace(_SLOT, self.words)

    @property
    def parts(self) -> tuple[str, str, str]:
        """Before the client's words, these, and after."""
        if self.words is None:
            return self.template, "", ""
        before, _, after = self.template.partition(_SLOT)
        return before, self.words, after


def resolve_task(request: Request) -> ResolvedTask:
    """Find the task: a named one, else a prompt of the card or with tags, else plain words are a question.

    Raises:
        UnsupportedTask: A task that Kosmos-2 does not have; the message lists those offered.
        InvalidRequest: An argument is missing.
    """
    if request.task is not None:
        return _named(request.task, request.prompt)
    prompt = request.prompt
    if not prompt.strip():
        return ResolvedTask("caption", BRIEF, None, "default")
    if TAGS.search(prompt) or _UNTAGGED.fullmatch(prompt.strip()):
        return ResolvedTask(_kind(prompt.strip()), prompt, None, "native")
    return ResolvedTask("query", _QUESTION, prompt.strip(), "plain", echoes=False)


def _kind(prompt: str) -> str:
    return next((name for pattern, name in _KINDS if pattern.fullmatch(prompt)), "caption")


def _named(task: Task, prompt: str) -> ResolvedTask:
    if task.name not in OFFERED:
        raise UnsupportedTask(
            f"Kosmos-2 has no task {task.name!r}; it offers: {', '.join(OFFERED)}.",
            param="task",
            code="unsupported_task",
        )
    ignored = _ignored(task, prompt)
    match task.name:
        case "caption":
            return ResolvedTask(task.name, BRIEF if task.length == "short" else DETAILED, None, "task", ignored=ignored)
        case "region_caption":
            return ResolvedTask(task.name, _region_prompt(task.region), None, "task", ignored=ignored)
        case "detect":
            return ResolvedTask(task.name, _PHRASE, _label(task.labels), "task", ignored=ignored)
        case "ground":
            return ResolvedTask(task.name, _PHRASE, _text(task, prompt), "task", ignored=ignored)
    return ResolvedTask(task.name, _QUESTION, _text(task, prompt), "task", echoes=False, ignored=ignored)


def _ignored(task: Task, prompt: str) -> tuple[str, ...]:
    given = {
        "labels": bool(task.labels),
        "text": task.text is not None,
        "region": task.region is not None,
        "length": task.length != "normal",
        "threshold": task.threshold is not None,
        "max_objects": task.max_objects is not None,
        "reasoning": task.reasoning,
        "references": bool(task.references),
    }
    takes_prompt = "text" in _USED[task.name] and task.text is None
    dropped = ("prompt",) if prompt.strip() and not takes_prompt else ()
    return dropped + tuple(f"task.{name}" for name, there in given.items() if there and name not in _USED[task.name])


def _text(task: Task, prompt: str) -> str:
    words = (prompt if task.text is None else task.text).strip()
    if not words:
        raise _missing(task.name, "task.text", "the text to work on")
    return words


def _label(labels: tuple[str, ...]) -> str:
    if len(labels) != 1 or not labels[0].strip():
        raise _missing("detect", "task.labels", "exactly one label a request")
    return labels[0].strip()


def _region_prompt(region: Box | None) -> str:
    if region is None:
        raise _missing("region_caption", "task.region", "the region to describe")
    first, last = (CELLS[cell] for cell in cells_of(region))
    return f"<grounding><phrase>It</phrase><object>{first}{last}</object> is"


def _missing(task: str, param: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"Kosmos-2's task {task!r} needs {what}.", param=param, code="invalid_value")
