"""One model after another, until one answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from router.composition.routing_report import Call, Report
from vlm.errors import (
    DeadlineExceeded,
    EngineFailure,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    UnsupportedTask,
    VlmError,
)
from vlm.types import Chunk

Ask = Callable[[str], AsyncGenerator[Chunk, None]]
"""The answer of a model to the request, as it grows."""

_ANOTHER_MAY = (Overloaded, ModelNotReady, ModelNotFound, DeadlineExceeded, EngineFailure, UnsupportedTask)

SHARE_OF_TIME = 0.5
"""Of what is left until the deadline, the most that a model may take to begin its answer while another one follows."""

MARGIN_S = 1.0
"""Before the deadline, what is not answered is given up, so that what is there is still sent."""
SHARE_OF_MARGIN = 0.1
"""Of what is left until the deadline, the most that is given up so."""


async def first_to_answer(
    models: Sequence[str], ask: Ask, report: Report, deadline: float
) -> AsyncGenerator[Chunk, None]:
    """The answer of the first of ``models`` that begins one; those before it are asked one by one.

    Args:
        models: At least one.
        ask: Asks one of them.
        report: Learns who was asked, and what became of it.
        deadline: In seconds on the event loop's clock; the caller sees to it that the answer ends by then.

    Raises:
        VlmError: The request itself is at fault, or the model that had begun failed; or the error of the last model,
            with those of all in its words.
    """
    for model in models[:-1]:
        call, began = report.asks(model), _now()
        try:
            async with aclosing(timed(ask(model), call, report)) as chunks:
                first = await first_of(chunks, began + SHARE_OF_TIME * (deadline - began))
                if first is not None:
                    yield first
                    async for chunk in chunks:
                        yield chunk
                    return
            raise EngineFailure("The model gave no answer.")
        except VlmError as error:
            report.failed(call, error, _ms_since(began))
            if call.began or not another_may(error):
                raise
    async with aclosing(timed(ask(models[-1]), report.asks(models[-1]), report)) as chunks:
        try:
            async for chunk in chunks:
                yield chunk
        except VlmError as error:
            raise of_all(error, report) from error


async def timed(chunks: AsyncGenerator[Chunk, None], call: Call, report: Report) -> AsyncGenerator[Chunk, None]:
    """The same chunks, of which the report learns; closes them in any case."""
    began = _now()
    async with aclosing(chunks):
        try:
            async for chunk in chunks:
                call.began = True
                if chunk.completion is not None:
                    report.answered(call, chunk.completion, _ms_since(began))
                yield chunk
        except VlmError as error:
            report.failed(call, error, _ms_since(began))
            raise


def just_before(deadline: float) -> float:
    """When to give up what is not answered, so that what is there is still sent."""
    return deadline - min(MARGIN_S, SHARE_OF_MARGIN * max(0.0, deadline - _now()))


def another_may(error: VlmError) -> bool:
    """Whether another model may answer a request that has failed so; else the request itself is at fault."""
    return isinstance(error, _ANOTHER_MAY)


async def first_of(chunks: AsyncGenerator[Chunk, None], limit: float | None) -> Chunk | None:
    """The first chunk; raises DeadlineExceeded if it has not come by ``limit``, on the event loop's clock."""
    try:
        async with asyncio.timeout_at(limit):
            return await anext(chunks, None)
    except TimeoutError as error:
        raise DeadlineExceeded("The model did not answer in its part of the time.") from error


def of_all(last: VlmError, report: Report) -> VlmError:
    """The error of a request that no model has answered."""
    failed = [call for call in report.calls if call.error is not None]
    if len(failed) < 2 or (isinstance(last, InvalidRequest) and not isinstance(last, UnsupportedTask)):
        return last
    told = "; ".join(f"{call.model}: {call.error}" for call in failed)
    worst = max((call.error for call in failed if call.error is not None), key=_hope)
    return worst.located(f"No model could answer. {told}", worst.param)


def _hope(error: VlmError) -> int:
    """How much it helps to try again: what is told is the error after which it helps most."""
    return next((at for at, kind in enumerate(_BY_HOPE) if isinstance(error, kind)), -1)


_BY_HOPE = (UnsupportedTask, ModelNotFound, EngineFailure, DeadlineExceeded, ModelNotReady, Overloaded)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _ms_since(began: float) -> float:
    return 1000 * (_now() - began)
