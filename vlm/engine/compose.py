"""Requests that take several generations: several images, several tasks on an image, or several labels of a task.

Such a request is split into single ones, which are answered at the same time and whose answers are merged. Those about
the same image share its encoding. Pure asyncio: the engine is whatever answers a single request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any

from vlm.engine.merging import about_one_image, across_images, ignored_by_all, merged
from vlm.errors import InvalidImage, VlmError
from vlm.generations import is_compound, labels_of, split
from vlm.types import Completion, Detection, Grounding, Request

Ask = Callable[[Request], Awaitable[Completion]]


async def complete(request: Request, ask: Ask) -> Completion:
    """Answer a request; the generations of a compound one run at the same time.

    Args:
        request: Has several images, several tasks, or a task with several labels.
        ask: Answers a single request; it is cancelled if another one fails.

    Raises:
        VlmError: The first failure; its ``param`` names the task (``"tasks[1].labels"``) or image (``"images[2]"``).
    """
    if not is_compound(request):
        return await ask(request)
    singles = split(request)
    if request.images:
        works = [_complete_image(single, ask, f"images[{index}]") for index, single in enumerate(singles)]
    elif request.tasks:
        works = [_complete_part(single, ask, f"tasks[{index}]") for index, single in enumerate(singles)]
    else:
        works = [complete(single, ask) for single in singles]
    return merge(request, await _all(works))


def merge(request: Request, answers: Sequence[Completion]) -> Completion:
    """Merge the answers to ``split(request)``, at least one, given in the same order.

    The answers about several images become one: their texts are numbered lines, and each detection knows its image.
    The answers to several tasks become ``parts``, and the grounding of the whole is that of the first one. The answers
    for several labels become one: their detections follow one another, each under the label that was asked for.
    """
    if request.images:
        return across_images(answers)
    texts, usage = [one.text for one in answers if one.has_text], about_one_image([one.usage for one in answers])
    if request.tasks:
        together = merged(answers, "".join(texts[:1]), answers[0].grounding, usage)
        return replace(together, ignored=_ignored_by_parts(answers), parts=tuple(answers))
    labelled = [_labelled(one.grounding, label) for one, label in zip(answers, labels_of(request), strict=True)]
    return merged(answers, "\n".join(texts), _joined(labelled), usage)


# --- answering ------------------------------------------------------------------------------------


async def _complete_part(request: Request, ask: Ask, name: str) -> Completion:
    """The answer to one of several tasks; the ``param`` of an error names that task."""
    try:
        return await complete(request, ask)
    except VlmError as error:
        raise error.located(error.message, _within(name, error.param)) from error


async def _complete_image(request: Request, ask: Ask, name: str) -> Completion:
    """The answer about one of several images; the ``param`` of an error that is the image's names that image."""
    try:
        return await complete(request, ask)
    except VlmError as error:
        of_image = error.param == "image" or (error.param is None and isinstance(error, InvalidImage))
        raise error.located(error.message, name if of_image else error.param) from error


def _within(name: str, param: str | None) -> str | None:
    """``task.labels`` as ``tasks[1].labels``; a field that is common to all tasks, such as the image, stays."""
    root, dot, rest = (param or "").partition(".")
    return f"{name}{dot}{rest}" if root == "task" else param


async def _all(works: Sequence[Coroutine[Any, Any, Completion]]) -> list[Completion]:
    """All results in order. At the first failure, or if this is cancelled, waits until the others have ended."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- merging --------------------------------------------------------------------------------------


def _ignored_by_parts(answers: Sequence[Completion]) -> tuple[str, ...]:
    """A task's own fields under its name; a common field, such as the prompt, only if no task has used it."""
    common = [name for name in ignored_by_all(answers) if not name.startswith("task.")]
    own = [
        str(_within(f"tasks[{index}]", name))
        for index, one in enumerate(answers)
        for name in one.ignored
        if name.startswith("task.")
    ]
    return (*common, *own)


def _labelled(grounding: Grounding, label: str) -> Grounding:
    return replace(grounding, detections=tuple(replace(one, label=label) for one in grounding.detections))


def _joined(groundings: Sequence[Grounding]) -> Grounding:
    """Joins the texts and raw outputs as lines; spans are moved along with their text."""
    texts = [one.text for one in groundings if one.text is not None]
    return replace(
        groundings[0],
        native_task="\n".join(dict.fromkeys(one.native_task for one in groundings)),
        text="\n".join(texts) if texts else None,
        detections=tuple(_in_joined_text(groundings)),
        truncated=any(one.truncated for one in groundings),
        raw="\n".join(one.raw for one in groundings),
        below_threshold=sum(one.below_threshold for one in groundings),
    )


def _in_joined_text(groundings: Sequence[Grounding]) -> Iterator[Detection]:
    offset = 0
    for grounding in groundings:
        for found in grounding.detections:
            yield replace(found, spans=tuple((start + offset, end + offset) for start, end in found.spans))
        offset += 0 if grounding.text is None else len(grounding.text) + 1
