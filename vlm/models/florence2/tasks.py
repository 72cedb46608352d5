"""Florence-2's tasks: their tokens, the sentences that stand for them, and which one a request means.

Owns the table of all fifteen tasks; offering one more is a change of its row, once its answer can be parsed. Knows
nothing of token ids. Sources: the model card of microsoft/Florence-2-base, transformers' Florence2Processor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from vlm.types import InvalidRequest, Request, Task, TaskResolution, UnsupportedTask

Answer = Literal["text", "boxes", "phrases", "quads", "regions", "polygons", "boxes_or_polygons"]

_SLOT = "{input}"
_TOKEN = re.compile(r"<[A-Z][A-Z_]*>")


@dataclass(frozen=True, slots=True)
class NativeTask:
    """One thing that Florence-2 was trained to do.

    Attributes:
        token: Its name in a prompt (``"<OD>"``).
        sentence: What the model reads instead; ``{input}`` stands for the argument, if it takes one.
        name: The canonical name.
        answer: How the output is written.
        offered: Whether this project parses and serves it.
    """

    token: str
    sentence: str
    name: str
    answer: Answer
    offered: bool = False

    @property
    def takes_argument(self) -> bool:
        """Whether the sentence has a place for one."""
        return _SLOT in self.sentence

    def prompt(self, argument: str) -> str:
        """The sentence with ``argument`` in its place."""
        return self.sentence.replace(_SLOT, argument)

    def argument(self, prompt: str) -> str | None:
        """The inverse of :meth:`prompt`; None where ``prompt`` is not this task's sentence."""
        before, slot, after = self.sentence.partition(_SLOT)
        if not slot:
            return "" if prompt == self.sentence else None
        fits = prompt.startswith(before) and prompt.endswith(after) and len(prompt) >= len(before) + len(after)
        return prompt[len(before) : len(prompt) - len(after)] if fits else None


TASKS = (  # those without an argument first: the reference looks for their tokens first
    NativeTask("<OCR>", "What is the text in the image?", "ocr", "text", True),
    NativeTask("<OCR_WITH_REGION>", "What is the text in the image, with regions?", "ocr_regions", "quads", True),
    NativeTask("<CAPTION>", "What does the image describe?", "caption", "text", True),
    NativeTask("<DETAILED_CAPTION>", "Describe in detail what is shown in the image.", "caption", "text", True),
    NativeTask(
        "<MORE_DETAILED_CAPTION>", "Describe with a paragraph what is shown in the image.", "caption", "text", True
    ),
    NativeTask("<OD>", "Locate the objects with category name in the image.", "detect", "boxes", True),
    NativeTask(
        "<DENSE_REGION_CAPTION>", "Locate the objects in the image, with their descriptions.", "dense_caption", "boxes"
    ),
    NativeTask("<REGION_PROPOSAL>", "Locate the region proposals in the image.", "region_proposal", "regions"),
    NativeTask(
        "<CAPTION_TO_PHRASE_GROUNDING>", "Locate the phrases in the caption: {input}", "ground", "phrases", True
    ),
    NativeTask("<REFERRING_EXPRESSION_SEGMENTATION>", "Locate {input} in the image with mask", "segment", "polygons"),
    NativeTask("<REGION_TO_SEGMENTATION>", "What is the polygon mask of region {input}", "segment", "polygons"),
    NativeTask("<OPEN_VOCABULARY_DETECTION>", "Locate {input} in the image.", "detect", "boxes_or_polygons"),
    NativeTask("<REGION_TO_CATEGORY>", "What is the region {input}?", "region_category", "text"),
    NativeTask("<REGION_TO_DESCRIPTION>", "What does the region {input} describe?", "region_caption", "text"),
    NativeTask("<REGION_TO_OCR>", "What text is in the region {input}?", "region_ocr", "text"),
)
BY_TOKEN = {task.token: task for task in TASKS}
OFFERED = tuple(sorted({task.name for task in TASKS if task.offered}))

_CAPTIONS = {"short": "<CAPTION>", "normal": "<DETAILED_CAPTION>", "long": "<MORE_DETAILED_CAPTION>"}
_NAMED = {
    "detect": "<OD>",
    "ground": "<CAPTION_TO_PHRASE_GROUNDING>",
    "ocr": "<OCR>",
    "ocr_regions": "<OCR_WITH_REGION>",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request means: a task, its argument ("" for none), how it was found, and which fields play no part."""

    task: NativeTask
    argument: str
    resolution: TaskResolution
    ignored: tuple[str, ...] = ()


def understand(request: Request) -> Asked:
    """Find the task: a named one, else a task token or sentence in the prompt, else plain words mean a caption.

    Raises:
        UnsupportedTask: A task that Florence-2 or this project does not have; the message lists those offered.
        InvalidRequest: An argument is missing, or there is one where none is taken.
    """
    if request.task is not None:
        return _named(request.task, request.prompt)
    return _by_token(request.prompt) or _by_sentence(request.prompt.strip()) or _plain(request.prompt)


def _named(task: Task, prompt: str) -> Asked:
    native = BY_TOKEN[_token_of(task)]
    unused = _unused(task, native)
    if not native.takes_argument:
        return Asked(native, "", "task", ("prompt", *unused) if prompt.strip() else unused)
    if task.text is not None and prompt.strip():
        unused = ("prompt", *unused)
    text = prompt if task.text is None else task.text
    return Asked(native, _argument(native, text, "task.text"), "task", unused)


def _token_of(task: Task) -> str:
    if task.name == "caption":
        return _CAPTIONS[task.length]
    if task.name == "detect" and task.labels:
        raise UnsupportedTask(
            "Florence-2 detects every object it knows and takes no labels here; "
            "use the task 'ground' with the labels as its text.",
            param="task",
            code="unsupported_task",
        )
    if task.name not in _NAMED:
        raise _unsupported(task.name)
    return _NAMED[task.name]


def _unused(task: Task, native: NativeTask) -> tuple[str, ...]:
    given = {
        "labels": bool(task.labels),
        "text": task.text is not None and not native.takes_argument,
        "region": task.region is not None,
        "length": task.length != "normal" and native.name != "caption",
    }
    return tuple(f"task.{name}" for name, there in given.items() if there)


def _by_token(prompt: str) -> Asked | None:
    for task in TASKS:
        if task.token in prompt:
            return _with_token(task, prompt)
    unknown = _TOKEN.match(prompt.strip())
    if unknown:
        raise _unsupported(unknown.group())
    return None


def _with_token(task: NativeTask, prompt: str) -> Asked:
    if not task.offered:
        raise _unsupported(task.token)
    if task.takes_argument:
        return Asked(task, _argument(task, prompt, "messages"), "native")
    if prompt.strip() != task.token:
        raise InvalidRequest(f"{task.token} takes no other text beside it.", param="messages", code="invalid_value")
    return Asked(task, "", "native")


def _by_sentence(prompt: str) -> Asked | None:
    for task in TASKS:
        argument = task.argument(prompt)
        if argument is None or (task.takes_argument and not task.offered):
            continue  # "Locate .. in the image." may well be plain words
        if not task.offered:
            raise _unsupported(task.token)
        if task.takes_argument:
            argument = _argument(task, argument, "messages")
        return Asked(task, argument, "native")
    return None


def _plain(prompt: str) -> Asked:
    words = prompt.casefold()
    if not words.strip():
        return Asked(BY_TOKEN["<CAPTION>"], "", "default")
    if "paragraph" in words:
        return Asked(BY_TOKEN["<MORE_DETAILED_CAPTION>"], "", "plain")
    detailed = "describe" in words or "detail" in words
    return Asked(BY_TOKEN["<DETAILED_CAPTION>" if detailed else "<CAPTION>"], "", "plain")


def _argument(task: NativeTask, text: str, param: str) -> str:
    argument = text.replace(task.token, "").strip()
    if not argument:
        raise InvalidRequest(f"{task.token} needs the text to work on.", param=param, code="invalid_value")
    return argument


def _unsupported(name: str) -> UnsupportedTask:
    native = ", ".join(task.token for task in TASKS if task.offered)
    return UnsupportedTask(
        f"There is no task {name} here; Florence-2 offers: {', '.join(OFFERED)} (as prompts: {native}).",
        param="task",
        code="unsupported_task",
    )
