"""All models at once, each as a choice of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from router.composition.fallback import Ask, first_of, just_before, timed
from router.composition.routing_report import Call, Report
from vlm.errors import DeadlineExceeded, VlmError
from vlm.types import Chunk, Completion, Grounding, Timings, Usage

_WAITING_CHUNKS = 64
"""Chunks that wait for a client that reads slowly, of all models together: then the models wait, too."""

Step = tuple[int, Chunk | Exception | None]
"""A choice's next chunk, its error, or None for its end."""


async def all_at_once(
    models: Sequence[str], ask: Ask, report: Report, task: str | None, deadline: float
) -> AsyncGenerator[Chunk, None]:
    """The answers of ``models`` as choices in their order, interleaved as they grow.

    A model that fails gives an empty choice, and its error is in the report; it does not disturb the others. So does
    one that has not answered a little before ``deadline``, which is in seconds on the event loop's clock.

    Raises:
        VlmError: No model has answered; the first one's error.
    """
    steps: asyncio.Queue[Step] = asyncio.Queue(_WAITING_CHUNKS)
    calls = [report.asks(model) for model in models]
    tasks = [
        asyncio.create_task(_pour(index, _until(just_before(deadline), ask(call.model), call, report), steps))
        for index, call in enumerate(calls)
    ]
    ends: dict[int, Completion | VlmError] = {}
    try:
        while len(ends) < len(models):
            index, step = await steps.get()
            if isinstance(step, Chunk):
                if step.completion is not None:
                    ends[index] = step.completion
                yield Chunk(choices=(replace(step, index=index, completion=None),))
            elif isinstance(step, Exception) and not isinstance(step, VlmError):
                raise step  # a fault of ours, which nobody else would ever hear of
            else:
                ends.setdefault(index, step or VlmError("The model gave no answer."))
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    yield Chunk(completion=_together([ends[index] for index in range(len(models))], task))


async def _until(
    end: float, chunks: AsyncGenerator[Chunk, None], call: Call, report: Report
) -> AsyncGenerator[Chunk, None]:
    """The same chunks, of which the report learns, and an error at ``end``; closes them in any case."""
    began = asyncio.get_running_loop().time()
    async with aclosing(timed(chunks, call, report)) as answer:
        try:
            while (chunk := await first_of(answer, end)) is not None:
                yield chunk
        except DeadlineExceeded as error:
            report.failed(call, error, 1000 * (end - began))
            raise


async def _pour(index: int, chunks: AsyncGenerator[Chunk, None], steps: asyncio.Queue[Step]) -> None:
    """Put a model's chunks into the queue, and what they end with."""
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                await steps.put((index, chunk))
        await steps.put((index, None))
    except Exception as error:  # noqa: BLE001  it is raised where it is taken from the queue
        await steps.put((index, error))


def _together(ends: Sequence[Completion | VlmError], task: str | None) -> Completion:
    """One answer of several choices, whose usage is that of all."""
    answered = [end for end in ends if isinstance(end, Completion)]
    if not answered:
        raise next(end for end in ends if isinstance(end, VlmError))
    choices = tuple(end if isinstance(end, Completion) else _nothing(answered[0], task) for end in ends)
    longest = max(answered, key=lambda one: one.timings.total_ms).timings
    return replace(
        choices[0],
        choices=choices,
        usage=Usage.sum([one.usage for one in answered]),
        timings=longest,
        resolution=answered[0].resolution,
        ignored=tuple(dict.fromkeys(name for one in answered for name in one.ignored)),
    )


def _nothing(answered: Completion, task: str | None) -> Completion:
    """The choice of a model that failed."""
    sizes = answered.grounding
    grounding = Grounding(task or sizes.task, "", None, sizes.image_size, image_sizes=sizes.image_sizes)
    return Completion("", (), (), grounding, "stop", Usage(0, 0, 0), Timings(0, 0, 0, 0), answered.resolution)
