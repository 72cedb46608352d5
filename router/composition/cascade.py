"""One model after another, until an answer is good enough: the cheap one first, the dear one where it has to be.

An answer is good enough if something was found and its confidence reaches a threshold: that of a text, or the least of
its objects. A confidence is a probability, unlike a score, because it was measured with the checkpoint that answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

from router.backends.base import ModelStatus
from router.composition.fallback import SHARE_OF_TIME, another_may, first_of, just_before, of_all, timed
from router.composition.routing_report import Call, Report
from router.composition.wanted import Wanted
from vlm.confidence import least
from vlm.errors import DeadlineExceeded, EngineFailure, InvalidRequest, VlmError
from vlm.model_info import CalibratedTask
from vlm.types import Chunk, Completion, Usage

_TEXT_TASKS = frozenset({"caption", "ocr", "query", "region_caption", "region_category", "region_ocr"})
"""Tasks that a text answers, so that no object has to be found."""


class AskOne(Protocol):
    """Asks one model."""

    def __call__(self, model: str, *, judged: bool = False) -> AsyncGenerator[Chunk, None]:
        """Its answer; where it is ``judged``, at once and with its confidence."""
        ...


@dataclass(frozen=True, slots=True)
class _Held:
    """An answer that was not good enough."""

    call: Call
    chunks: Sequence[Chunk]
    confidence: float


async def until_good(
    models: Sequence[str], thresholds: Sequence[float | None], ask: AskOne, report: Report, deadline: float
) -> AsyncGenerator[Chunk, None]:
    """The first answer that is good enough, or that of the last model; if the last one fails, the best that there is.

    Args:
        models: At least two; all but the last answer whole.
        thresholds: With what confidence to be content, of each model but the last.
        ask: Asks one of them.
        report: Learns who was asked, and what became of it.
        deadline: In seconds on the event loop's clock; the caller sees to it that the answer ends by then.

    Raises:
        VlmError: The request itself is at fault, or the last model failed, and no other has answered.
    """
    held: list[_Held] = []
    for model, threshold in zip(models[:-1], thresholds, strict=True):
        call = report.asks(model)
        call.min_confidence = threshold
        chunks = await _whole(ask(model, judged=True), call, report, deadline)
        if chunks is None:
            continue
        answer = chunks[-1].completion
        assert answer is not None, "a whole answer ends in its completion"
        call.reason, call.confidence = shortfall(answer, threshold)
        if call.reason is None:
            for chunk in chunks:
                yield _with_usage_of_all(chunk, report)
            return
        held.append(_Held(call, chunks, call.confidence or 0.0))
    async for chunk in _last(models[-1], ask, report, held, deadline):
        yield _with_usage_of_all(chunk, report)


async def _whole(
    chunks: AsyncGenerator[Chunk, None], call: Call, report: Report, deadline: float
) -> list[Chunk] | None:
    """All chunks of a model's answer; None if it failed as another may not."""
    now = asyncio.get_running_loop().time
    began = now()
    try:
        async with aclosing(timed(chunks, call, report)) as answer, asyncio.timeout_at(_share(began, deadline)):
            whole = [chunk async for chunk in answer]
        if not whole or whole[-1].completion is None:
            raise EngineFailure("The model gave no answer.")
    except TimeoutError:
        report.failed(call, DeadlineExceeded("The model did not answer in its part of the time."), _ms(now() - began))
        return None
    except VlmError as error:
        report.failed(call, error, _ms(now() - began))
        if not another_may(error):
            raise
        return None
    return whole


async def _last(
    model: str, ask: AskOne, report: Report, held: Sequence[_Held], deadline: float
) -> AsyncGenerator[Chunk, None]:
    """The last model's answer as it grows; where it fails before it begins, the best of those that were held back.

    So too where it has not begun a little before ``deadline``.
    """
    call, began = report.asks(model), asyncio.get_running_loop().time()
    try:
        async with aclosing(timed(ask(model), call, report)) as chunks:
            first = await first_of(chunks, just_before(deadline) if held else None)
            if first is None:
                raise EngineFailure("The model gave no answer.")
            yield first
            async for chunk in chunks:
                yield chunk
    except VlmError as error:
        report.failed(call, error, _ms(asyncio.get_running_loop().time() - began))
        best = max(held, key=lambda one: one.confidence, default=None)
        if call.began or best is None or not another_may(error):
            raise of_all(error, report) from error
    else:
        return
    report.taken = best.call.model
    for chunk in best.chunks:
        yield chunk


def shortfall(answer: Completion, threshold: float | None) -> tuple[str | None, float | None]:
    """Why an answer is not good enough, or None, and its confidence, where it has one."""
    grounding = answer.grounding
    in_text = answer.has_text and grounding.task in _TEXT_TASKS
    if not (answer.text.strip() if in_text else _found_in_all(answer)):
        return "found_nothing", None
    confidence = answer.confidence if in_text else least([one.confidence for one in grounding.detections])
    if confidence is None or threshold is None:
        return "not_calibrated", confidence
    return (None if confidence >= threshold else "low_confidence"), confidence


def _found_in_all(answer: Completion) -> bool:
    """Whether something was found in each image."""
    grounding = answer.grounding
    found = {one.image for one in grounding.detections}
    return bool(found) and len(found) >= len(grounding.sizes)


def _with_usage_of_all(chunk: Chunk, report: Report) -> Chunk:
    """The same; its completion has the tokens of all models that have answered."""
    if chunk.completion is None:
        return chunk
    usages = [call.usage for call in report.calls if call.usage is not None]
    return replace(chunk, completion=replace(chunk.completion, usage=Usage.sum(usages)))


def _share(now: float, deadline: float) -> float:
    return now + SHARE_OF_TIME * (deadline - now)


def _ms(seconds: float) -> float:
    return 1000 * seconds


# At the door


def thresholds(
    wanted: Wanted, models: Sequence[str], task: str, statuses: Mapping[str, ModelStatus]
) -> tuple[float | None, ...]:
    """With what confidence to be content, of each of ``models`` but the last.

    Raises:
        InvalidRequest: That cannot be judged, because a model was not calibrated for the task; with its path.
    """
    return tuple(
        _threshold(wanted, model, models[place + 1 :], task, statuses[model]) for place, model in enumerate(models[:-1])
    )


def may_be_judged(status: ModelStatus, task: str) -> bool:
    """Whether a model's answers have confidences, or at least may have: no process has said yet what it has loaded."""
    return status.info is None or _calibrated(status, task) is not None


def _threshold(wanted: Wanted, model: str, later: Sequence[str], task: str, status: ModelStatus) -> float | None:
    if not may_be_judged(status, task):
        raise InvalidRequest(
            f"The model {model!r} was not calibrated for the task {task!r}, so that nothing tells whether its answer "
            "is good enough: name it last, or leave it out.",
            _path(wanted, model),
            "invalid_value",
        )
    if wanted.min_confidence is not None:
        return wanted.min_confidence
    calibrated = _calibrated(status, task)
    found = None if calibrated is None else calibrated.before(later)
    if calibrated is not None and found is None:
        raise InvalidRequest(
            f"It is not known with which confidence an answer of {model!r} to the task {task!r} is as good as those of "
            f"{' and '.join(later)}: send min_confidence, from 0 to 1.",
            "min_confidence",
            "invalid_value",
        )
    return found


def _calibrated(status: ModelStatus, task: str) -> CalibratedTask | None:
    known = () if status.info is None else status.info.calibrated
    return next((one for one in known if one.name == task), None)


def _path(wanted: Wanted, model: str) -> str:
    return wanted.paths[wanted.models.index(model)] if model in wanted.models else "model"
