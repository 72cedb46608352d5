"""Requests that take several generations: several tasks on one image, or several labels of one task.

Such a request is split into single ones, which are answered at the same time and whose answers are merged. All of them
have the same image, so the engine encodes it once. Pure asyncio: the engine is whatever answers a single request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

from vlm.errors import InvalidRequest, VlmError
from vlm.types import Chunk, Completion, Detection, FinishReason, Grounding, Request, Timings, Usage

MAX_GENERATIONS = 64
"""Maximum number of generations of one request: one for each task, and for each label of a task."""

PER_LABEL = frozenset(("detect", "point"))
"""Tasks that take one generation for each label."""

Ask = Callable[[Request], Awaitable[Completion]]


def is_compound(request: Request) -> bool:
    """Whether the request takes several generations, or its answer has parts."""
    return bool(request.tasks) or len(_labels(request)) > 1


async def answer(request: Request, ask: Ask) -> Chunk:
    """Answer a compound request as one chunk; its generations run at the same time.

    Args:
        request: Has several tasks, or a task with several labels.
        ask: Answers a single request; it is cancelled if another one fails.

    Raises:
        VlmError: The first failure; its ``param`` names the task (``"tasks[1].labels"``).
    """
    completion = await _complete(request, ask)
    reasoning = completion.reasoning or ""
    return Chunk(
        completion.text,
        completion.token_ids,
        completion.logprobs,
        completion,
        reasoning,
        token_bytes=completion.token_bytes,
        top_logprobs=completion.top_logprobs,
    )


def generations(request: Request) -> int:
    """Number of single requests that the request is split into; each choice of an answer is one."""
    return sum(map(generations, split(request))) if is_compound(request) else request.n


def check_generations(request: Request) -> None:
    """Raise InvalidRequest if the request takes more than MAX_GENERATIONS, or several of more than one kind."""
    if request.n > 1 and is_compound(request):
        raise InvalidRequest(
            "n above 1 cannot be combined with several tasks or labels, whose answers come together as one choice: "
            "set n to 1, or send a request for each task or label.",
            param="n",
            code="invalid_value",
        )
    count = generations(request)
    if count > MAX_GENERATIONS:
        raise InvalidRequest(
            f"The request takes {count} generations, one for each task and label; at most {MAX_GENERATIONS} are "
            "answered together. Send several requests.",
            param=field_of(request),
            code="invalid_value",
        )


def field_of(request: Request) -> str:
    """The field that asks for several generations."""
    if request.n > 1:
        return "n"
    return "tasks" if request.tasks else "task.labels"


def split(request: Request) -> tuple[Request, ...]:
    """One request for each task, or for each label of the only task; the request itself if it asks one thing."""
    if request.tasks:
        return tuple(replace(request, task=task, tasks=()) for task in request.tasks)
    labels = _labels(request)
    if request.task is None or len(labels) < 2:
        return (request,)
    return tuple(replace(request, task=replace(request.task, labels=(label,))) for label in labels)


def merge(request: Request, answers: Sequence[Completion]) -> Completion:
    """Merge the answers to ``split(request)``, at least one, given in the same order.

    The answers to several tasks become ``parts``, and the grounding of the whole is that of the first one. The answers
    for several labels become one: their detections follow one another, and a detection to which the model gave no label
    gets the one that was asked for.
    """
    texts = [one.text for one in answers if one.has_text]
    if request.tasks:
        together = _merged(answers, "".join(texts[:1]), answers[0].grounding)
        return replace(together, ignored=_ignored_by_parts(answers), parts=tuple(answers))
    labelled = [_labelled(one.grounding, label) for one, label in zip(answers, _labels(request), strict=True)]
    return _merged(answers, "\n".join(texts), _joined(labelled))


def _labels(request: Request) -> tuple[str, ...]:
    """The labels that take a generation each; a label that is named twice takes one."""
    task = request.task
    return tuple(dict.fromkeys(task.labels)) if task is not None and task.name in PER_LABEL else ()


# --- answering ------------------------------------------------------------------------------------


async def _complete(request: Request, ask: Ask) -> Completion:
    if not is_compound(request):
        return await ask(request)
    singles = split(request)
    if request.tasks:
        works = [_complete_part(single, ask, f"tasks[{index}]") for index, single in enumerate(singles)]
    else:
        works = [_complete(single, ask) for single in singles]
    return merge(request, await _all(works))


async def _complete_part(request: Request, ask: Ask, name: str) -> Completion:
    """The answer to one of several tasks; the ``param`` of an error names that task."""
    try:
        return await _complete(request, ask)
    except VlmError as error:
        raise type(error)(error.message, _within(name, error.param), error.code) from error


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


def _merged(answers: Sequence[Completion], text: str, grounding: Grounding) -> Completion:
    return replace(
        answers[0],
        text=text,
        token_ids=tuple(token for one in answers for token in one.token_ids),
        logprobs=tuple(logprob for one in answers for logprob in one.logprobs),
        grounding=grounding,
        finish_reason=_finish_reason(answers),
        usage=_usage([one.usage for one in answers]),
        timings=longest([one.timings for one in answers]),
        ignored=_ignored_by_all(answers),
        has_text=any(one.has_text for one in answers),
        token_bytes=tuple(piece for one in answers for piece in one.token_bytes),
        top_logprobs=tuple(step for one in answers for step in one.top_logprobs),
    )


def _finish_reason(answers: Sequence[Completion]) -> FinishReason:
    return "length" if any(one.finish_reason == "length" for one in answers) else "stop"


def _usage(usages: Sequence[Usage]) -> Usage:
    """The image counts once, and as cached only if none of the answers waited for its encode."""
    return Usage(
        image_tokens=max(one.image_tokens for one in usages),
        text_tokens=sum(one.text_tokens for one in usages),
        completion_tokens=sum(one.completion_tokens for one in usages),
        cached_tokens=min(one.cached_tokens for one in usages),
        reasoning_tokens=sum(one.reasoning_tokens for one in usages),
    )


def longest(timings: Sequence[Timings]) -> Timings:
    """The longest of each time, for answers that were generated together."""
    return Timings(*(max(getattr(one, field.name) for one in timings) for field in fields(Timings)))


def _ignored_by_parts(answers: Sequence[Completion]) -> tuple[str, ...]:
    """A task's own fields under its name; a common field, such as the prompt, only if no task has used it."""
    common = [name for name in _ignored_by_all(answers) if not name.startswith("task.")]
    own = [
        str(_within(f"tasks[{index}]", name))
        for index, one in enumerate(answers)
        for name in one.ignored
        if name.startswith("task.")
    ]
    return (*common, *own)


def _ignored_by_all(answers: Sequence[Completion]) -> tuple[str, ...]:
    return tuple(name for name in answers[0].ignored if all(name in one.ignored for one in answers))


def _labelled(grounding: Grounding, label: str) -> Grounding:
    named = (one if one.label else replace(one, label=label) for one in grounding.detections)
    return replace(grounding, detections=tuple(named))


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
