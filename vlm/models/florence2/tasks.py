"""Florence-2's fifteen tasks: the token and the sentence of each, and which one a request means.

Sources: the model card of microsoft/Florence-2-base, and transformers' ``Florence2Processor``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from vlm.errors import InvalidRequest, UnsupportedTask
from vlm.models.florence2.vocabulary import BINS
from vlm.models.native_prompts import foreign_task
from vlm.models.plain_words import OTHERWISE, asks_for_a_caption, task_of
from vlm.models.tasks import ignored_fields, unsupported_task
from vlm.types import Box, Request, Task, TaskResolution

Answer = Literal["text", "boxes", "phrases", "quads", "regions", "polygons", "boxes_or_polygons"]

_SLOT = "{input}"
_TOKEN = re.compile(r"<[A-Z][A-Z_]*>")
_REGION = re.compile(r"(?:\s*<loc_(?:0|[1-9][0-9]{0,2})>){4}")


@dataclass(frozen=True, slots=True)
class NativeTask:
    """A task that Florence-2 was trained for.

    Attributes:
        token: Its name in a prompt (``"<OD>"``).
        sentence: What the model reads instead of the token; ``{input}`` stands for the argument, if the task takes one.
        name: The canonical name.
        answer: The form of the output.
        region: Whether the argument is a region: four location tokens.
    """

    token: str
    sentence: str
    name: str
    answer: Answer
    region: bool = False

    @property
    def takes_argument(self) -> bool:
        """Whether the sentence contains ``{input}``."""
        return _SLOT in self.sentence

    def prompt(self, argument: str) -> str:
        """The sentence with ``argument`` for ``{input}``."""
        return self.sentence.replace(_SLOT, argument)

    def argument(self, prompt: str) -> str | None:
        """The inverse of :meth:`prompt`; None where ``prompt`` is not this task's sentence."""
        before, slot, after = self.sentence.partition(_SLOT)
        if not slot:
            return "" if prompt == self.sentence else None
        fits = prompt.startswith(before) and prompt.endswith(after) and len(prompt) >= len(before) + len(after)
        return prompt[len(before) : len(prompt) - len(after)] if fits else None

    def fits(self, argument: str) -> bool:
        """Whether ``argument`` is what the task takes: a region, some text, or nothing."""
        if self.region:
            return _REGION.fullmatch(argument) is not None
        return bool(argument.strip()) == self.takes_argument


TASKS = (  # those without an argument first: transformers looks for their tokens first
    NativeTask("<OCR>", "What is the text in the image?", "ocr", "text"),
    NativeTask("<OCR_WITH_REGION>", "What is the text in the image, with regions?", "ocr_regions", "quads"),
    NativeTask("<CAPTION>", "What does the image describe?", "caption", "text"),
    NativeTask("<DETAILED_CAPTION>", "Describe in detail what is shown in the image.", "caption", "text"),
    NativeTask("<MORE_DETAILED_CAPTION>", "Describe with a paragraph what is shown in the image.", "caption", "text"),
    NativeTask("<OD>", "Locate the objects with category name in the image.", "detect", "boxes"),
    NativeTask(
        "<DENSE_REGION_CAPTION>", "Locate the objects in the image, with their descriptions.", "dense_caption", "boxes"
    ),
    NativeTask("<REGION_PROPOSAL>", "Locate the region proposals in the image.", "region_proposal", "regions"),
    NativeTask("<CAPTION_TO_PHRASE_GROUNDING>", "Locate the phrases in the caption: {input}", "ground", "phrases"),
    NativeTask("<REFERRING_EXPRESSION_SEGMENTATION>", "Locate {input} in the image with mask", "segment", "polygons"),
    NativeTask("<REGION_TO_SEGMENTATION>", "What is the polygon mask of region {input}", "segment", "polygons", True),
    NativeTask("<OPEN_VOCABULARY_DETECTION>", "Locate {input} in the image.", "detect", "boxes_or_polygons"),
    NativeTask("<REGION_TO_CATEGORY>", "What is the region {input}?", "region_category", "text", True),
    NativeTask("<REGION_TO_DESCRIPTION>", "What does the region {input} describe?", "region_caption", "text", True),
    NativeTask("<REGION_TO_OCR>", "What text is in the region {input}?", "region_ocr", "text", True),
)
BY_TOKEN = {task.token: task for task in TASKS}
POINT = "point"
"""Derived from detection: the centres of the boxes that it finds."""
OFFERED = tuple(sorted({POINT, *(task.name for task in TASKS)}))

_CAPTIONS = {"short": "<CAPTION>", "normal": "<DETAILED_CAPTION>", "long": "<MORE_DETAILED_CAPTION>"}
_NAMED = {
    "dense_caption": "<DENSE_REGION_CAPTION>",
    "ground": "<CAPTION_TO_PHRASE_GROUNDING>",
    "ocr": "<OCR>",
    "ocr_regions": "<OCR_WITH_REGION>",
    "region_caption": "<REGION_TO_DESCRIPTION>",
    "region_category": "<REGION_TO_CATEGORY>",
    "region_ocr": "<REGION_TO_OCR>",
    "region_proposal": "<REGION_PROPOSAL>",
}


@dataclass(frozen=True, slots=True)
class ResolvedTask:
    """What a request means.

    Attributes:
        task: The model's task.
        argument: What replaces ``{input}`` in its sentence; "" for a task without.
        resolution: How the task was found.
        ignored: Paths of the request's fields that are not used.
        points: Whether the answer is the centres of the boxes.
    """

    task: NativeTask
    argument: str
    resolution: TaskResolution
    ignored: tuple[str, ...] = ()
    points: bool = False

    @property
    def name(self) -> str:
        """The canonical name of the requested task."""
        return POINT if self.points else self.task.name


def resolve_task(request: Request) -> ResolvedTask:
    """Find the task: a named one, else that of a task token or sentence in the prompt, else what plain words ask for.

    Raises:
        UnsupportedTask: Florence-2 does not have the task; the message lists those that it has.
        InvalidRequest: An argument is missing or is not a region where one is needed, or the task takes no argument.
    """
    if request.task is not None:
        return _named(request.task, request.prompt)
    prompt = request.prompt
    return _by_token(prompt) or _by_sentence(prompt.strip()) or _foreign(prompt) or _plain(prompt)


def locations(region: Box) -> str:
    """A region as the four location tokens of its corners.

    Raises:
        InvalidRequest: The region is empty.
    """
    if not (region.x_min < region.x_max and region.y_min < region.y_max):
        raise InvalidRequest(
            "The region is empty: its corners x1, y1, x2, y2 must have x1 < x2 and y1 < y2.",
            param="task.region",
            code="invalid_value",
        )
    sides = (region.x_min, region.y_min, region.x_max, region.y_max)
    return "".join(f"<loc_{_bin(side)}>" for side in sides)


def _bin(value: float) -> int:
    return int(min(max(value * BINS, 0), BINS - 1))


def _named(task: Task, prompt: str) -> ResolvedTask:
    native = BY_TOKEN[_token_of(task)]
    points = task.name == POINT
    field = _argument_field(native)
    ignored = ignored_fields(task, prompt, frozenset(_used(task, native, field)))
    if not field:
        return ResolvedTask(native, "", "task", ignored, points)
    given = _given(task, field)
    argument = _argument(native, prompt if given is None else given, f"task.{field}")
    return ResolvedTask(native, argument, "task", ignored, points)


def _used(task: Task, native: NativeTask, field: str) -> Iterator[str]:
    """Names of the fields that the task uses; ``field`` is that of its argument, or "" for a task without."""
    if field:
        yield field
        if _given(task, field) is None:
            yield "prompt"
    if native.name == "caption":
        yield "length"
    if native.answer != "text":
        yield "threshold"


def _token_of(task: Task) -> str:
    if task.name == "caption":
        return _CAPTIONS[task.length]
    if task.name in ("detect", POINT):
        return _detection(task)
    if task.name == "segment":
        return _segmentation(task)
    if task.name not in _NAMED:
        raise _unsupported(task.name)
    return _NAMED[task.name]


def _detection(task: Task) -> str:
    if len(task.labels) > 1:
        raise UnsupportedTask(
            f"Florence-2 looks for one label at a time, and {len(task.labels)} were given: make one request per label, "
            "or use the task 'ground' with the labels as its text.",
            param="task.labels",
            code="unsupported_task",
        )
    return "<OPEN_VOCABULARY_DETECTION>" if task.labels else "<OD>"


def _segmentation(task: Task) -> str:
    if task.region is None:
        return "<REFERRING_EXPRESSION_SEGMENTATION>"
    if task.text is not None:
        raise InvalidRequest(
            "Florence-2 segments what a text names, or what is in a region: give a text or a region, not both.",
            param="task.region",
            code="invalid_value",
        )
    return "<REGION_TO_SEGMENTATION>"


def _argument_field(native: NativeTask) -> str:
    """The field of a named task that has the argument; "" for a task without an argument."""
    if native.region:
        return "region"
    if native.answer == "boxes_or_polygons":
        return "labels"
    return "text" if native.takes_argument else ""


def _given(task: Task, field: str) -> str | None:
    """The argument in the task's field; None where the prompt has it."""
    if field == "region":
        return None if task.region is None else locations(task.region)
    return task.labels[0] if field == "labels" else task.text


def _by_token(prompt: str) -> ResolvedTask | None:
    for task in TASKS:
        if task.token in prompt:
            return _with_token(task, prompt)
    unknown = _TOKEN.match(prompt.strip())
    if unknown:
        raise _unsupported(unknown.group())
    return None


def _with_token(task: NativeTask, prompt: str) -> ResolvedTask:
    if task.takes_argument:
        return ResolvedTask(task, _argument(task, prompt, "prompt"), "native")
    if prompt.strip() != task.token:
        raise InvalidRequest(f"{task.token} takes no other text.", param="prompt", code="invalid_value")
    return ResolvedTask(task, "", "native")


def _by_sentence(prompt: str) -> ResolvedTask | None:
    for task in TASKS:
        argument = task.argument(prompt)
        if argument is None or not task.fits(argument):
            continue  # "What is the region .. ?" may also be an ordinary question
        return ResolvedTask(task, argument.strip(), "native")
    return None


def _foreign(prompt: str) -> ResolvedTask | None:
    task = foreign_task("florence2", prompt)
    return None if task is None else replace(_named(task, ""), resolution="foreign")


def _plain(prompt: str) -> ResolvedTask:
    if not prompt.strip():
        return ResolvedTask(BY_TOKEN["<CAPTION>"], "", "default")
    task = task_of(prompt)
    unused = ("prompt",) if task is OTHERWISE and not asks_for_a_caption(prompt) else ()
    return ResolvedTask(BY_TOKEN[_token_of(task)], "", "plain", unused)


def _argument(task: NativeTask, text: str, param: str) -> str:
    argument = text.replace(task.token, "").strip()
    if not task.fits(argument):
        raise InvalidRequest(f"{task.token} needs {_wanted(task)}.", param=param, code="invalid_value")
    return argument


def _wanted(task: NativeTask) -> str:
    if task.region:
        return (
            "a region: its corners x1, y1, x2, y2 from 0 to 1, or the prompt "
            f"{task.token}<loc_x1><loc_y1><loc_x2><loc_y2> with numbers from 0 to {BINS - 1}"
        )
    if task.name == "segment":
        return "a text or a region: what to segment"
    return "a label: what to look for" if task.name == "detect" else "a text: the phrases to find"


def _unsupported(name: str) -> UnsupportedTask:
    return unsupported_task("Florence-2", name, OFFERED, prompts=[task.token for task in TASKS])
