"""What several models agree on, from their answers to one task."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from router.composition.compare import all_at_once
from router.composition.fallback import Ask
from router.composition.routing_report import Report
from vlm.consensus import Vote, agreed, majority
from vlm.errors import VlmError
from vlm.types import Chunk, Completion


async def consensus(
    models: Sequence[str],
    weights: Sequence[float],
    ask: Ask,
    report: Report,
    task: str | None,
    *,
    deadline: float,
    min_votes: int | None,
) -> AsyncGenerator[Chunk, None]:
    """The merged answer of ``models``, in one chunk. One that fails has no vote, and its error is in the report.

    Args:
        models: At least two.
        weights: How much each counts.
        ask: Asks one of them.
        report: Learns what became of each.
        task: Canonical name of the task.
        deadline: In seconds on the event loop's clock. One that has not answered a little before it has no vote.
        min_votes: How many must agree; None for more than half of those that have answered, and at least two.

    Raises:
        VlmError: Fewer models have answered than must agree; the error of the first that has not.
    """
    async with aclosing(all_at_once(models, ask, report, task, deadline)) as chunks:
        async for chunk in chunks:
            if chunk.completion is not None:
                yield Chunk.whole(_merged(chunk.completion, weights, report, min_votes))


def _merged(together: Completion, weights: Sequence[float], report: Report, min_votes: int | None) -> Completion:
    votes = [
        Vote(call.model, choice.grounding, weight)
        for call, choice, weight in zip(report.answering, together.choices, weights, strict=True)
        if call.error is None
    ]
    needed = max(2, majority(len(votes))) if min_votes is None else min_votes
    if len(votes) < needed:
        raise _too_few(report, needed, len(votes))
    grounding = agreed(votes, needed)
    return replace(
        together,
        choices=(),
        text="",
        has_text=False,
        token_ids=(),
        logprobs=(),
        finish_reason="stop",
        grounding=grounding,
    )


def _too_few(report: Report, needed: int, answered: int) -> VlmError:
    failed = [(call.model, call.error) for call in report.answering if call.error is not None]
    told = "; ".join(f"{model}: {error}" for model, error in failed)
    first = failed[0][1]
    return first.located(f"{needed} models must agree, and {answered} answered. {told}", first.param)
