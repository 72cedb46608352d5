"""Scheduling, running and committing without threads: sequences in, one step at a time, chunks out.

One thread drives a :class:`Core`. A step never waits for a client, so it takes only as long as the device needs.
"""

from __future__ import annotations

import logging
import math
import time
from collections import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from vlm.engine.beams import Hypothesis
from vlm.engine.blocks import BlockPool, CachePlan
from vlm.engine.completion import last_chunk, next_chunk
from vlm.engine.config import EngineStats
from vlm.engine.output import TextDelta
from vlm.engine.runner import Chosen, ModelRunner, device_is_broken, not_finite
from vlm.engine.scheduler import Batch, Scheduler
from vlm.engine.sequence import Sequence
from vlm.errors import EngineFailure, EngineLost
from vlm.models.base import LoadedModel
from vlm.types import Chunk, FinishReason

log = logging.getLogger(__name__)
answers_log = logging.getLogger(f"{__name__}.answers")
"""Of exceptions that may quote an answer, which is therefore left out (:mod:`logs.lines`)."""

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Event:
    """What a sequence's client gets: a chunk, or the error that ended the sequence."""

    sequence: Sequence
    chunk: Chunk | None = None
    error: EngineFailure | None = None


class Core:
    """A scheduler and a runner, and the commit of their results."""

    def __init__(
        self,
        loaded: LoadedModel,
        plan: CachePlan,
        max_prefill: int,
        encoder_cache_bytes: int = 0,
        *,
        slot_reserve: int = 0,
    ) -> None:
        """Allocate the KV cache of ``plan``; for the others, see :class:`~vlm.engine.config.EngineConfig`."""
        self.broken = False
        self.scheduler = Scheduler(
            BlockPool(plan.blocks),
            plan.rows,
            max_prefill,
            plan.slots,
            keep_prefixes=encoder_cache_bytes > 0,
            slot_reserve=slot_reserve,
        )
        self._model = loaded.model
        self._processor = loaded.processor
        self._calibration = loaded.calibration
        self._runner = ModelRunner(loaded, plan, encoder_cache_bytes)
        self._steps = self._rows = 0

    @property
    def busy(self) -> bool:
        """Whether there are sequences, so that a step has something to do."""
        return bool(self.scheduler.running or self.scheduler.waiting)

    def stats(self) -> EngineStats:
        """The counters, from any thread; they may belong to two neighbouring steps."""
        scheduler, images = self.scheduler, self._runner.images
        cached = scheduler.prefixes.blocks
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            max_batch=scheduler.slots,
            total_blocks=scheduler.pool.total,
            used_blocks=scheduler.pool.used - cached,
            cached_blocks=cached,
            images_encoded=images.encoded,
            image_hits=images.hits + scheduler.prefixes.hits,
            steps=self._steps,
            rows=self._rows,
            preemptions=scheduler.preemptions,
        )

    def submit(self, sequence: Sequence) -> None:
        """Queue a prepared sequence."""
        self.scheduler.add(sequence)

    def abort(self, sequence: Sequence) -> None:
        """Drop a sequence and free all that it holds at once; one that has finished is ignored."""
        self.scheduler.remove(sequence)

    def step(self) -> list[Event]:
        """Start waiting sequences as far as there is room, and generate one token for each running one."""
        batch = self.scheduler.schedule()
        now = time.perf_counter()
        for sequence in batch.prefill:
            sequence.started = sequence.started or now
        # Both halves run before either is committed: a sequence that ends moves the last slot, which may just be
        # starting.
        running = self.scheduler.running[: len(self.scheduler.running) - len(batch.prefill)]
        self._steps += bool(running)
        self._rows += len(batch.decode.beams)
        decoded = self._attempt(log, running, self._runner.decode, batch.decode)
        prefilled = self._attempt(log, batch.prefill, self._runner.prefill, batch)
        self._commit_prefixes(batch, computed=prefilled is not None)
        return [*self._commit_all(running, decoded), *self._commit_all(batch.prefill, prefilled)]

    def _commit_prefixes(self, batch: Batch, *, computed: bool) -> None:
        prefixes = [job.prefix for job in batch.prefixes]
        if computed:
            self.scheduler.prefixes.computed(prefixes)
        else:
            self.scheduler.prefixes.drop(prefixes)

    def fail_all(self, message: str) -> list[Event]:
        """End every sequence with an error."""
        return self._fail([*self.scheduler.running, *self.scheduler.waiting], message)

    def _attempt(
        self,
        logger: logging.Logger,
        sequences: abc.Sequence[Sequence],
        work: Callable[P, list[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> list[T] | None:
        """The result of ``work`` for these sequences, or None if it raised; other sequences are not affected."""
        if not sequences:
            return []
        try:
            return work(*args, **kwargs)
        except Exception as error:
            requests = ", ".join(dict.fromkeys(one.request_id for one in sequences if one.request_id)) or "unknown"
            logger.exception("a step of %d sequences failed; requests: %s", len(sequences), requests)
            self.broken = self.broken or device_is_broken(error)
            return None

    def _commit_all(self, sequences: abc.Sequence[Sequence], chosen: list[Chosen] | None) -> list[Event]:
        if chosen is None:
            return self._fail(sequences, "The model failed while it worked on this request.")
        return [event for one, new in zip(sequences, chosen, strict=True) for event in self._commit_one(one, new)]

    def _commit_one(self, sequence: Sequence, chosen: Chosen) -> list[Event]:
        events = self._attempt(answers_log, [sequence], self._commit, sequence, chosen)
        return self._fail([sequence], "The model's answer could not be read.") if events is None else events

    def _fail(self, sequences: abc.Sequence[Sequence], message: str) -> list[Event]:
        for sequence in sequences:
            self.scheduler.remove(sequence)
        kind = EngineLost if self.broken else EngineFailure  # of a broken device, any sequence may be the reason
        return [Event(sequence, error=kind(message)) for sequence in sequences]

    def _commit(self, sequence: Sequence, chosen: Chosen) -> list[Event]:
        if not chosen.finite:
            message = not_finite(self._model.dtype)
            log.error("logits are not finite: %s", message, extra={"request_id": sequence.request_id})
            return self._fail([sequence], message)
        sequence.first_token = sequence.first_token or time.perf_counter()
        return self._branch(sequence, chosen) if chosen.ranked else self._append(sequence, chosen)

    def _branch(self, sequence: Sequence, chosen: Chosen) -> list[Event]:
        """Advance a beam search by one token; only its end makes an event."""
        search = sequence.search
        assert search is not None
        going_on = search.advance(sequence.beams, chosen.ranked)
        if not search.ended:
            self.scheduler.branch(sequence, going_on)
            return []
        return self._settle(sequence, search.best)

    def _settle(self, sequence: Sequence, best: Hypothesis) -> list[Event]:
        """Take the best hypothesis of a search as the answer, up to a stop string."""
        delta = TextDelta()
        for token in best.generated:
            sequence.generated.append(token)
            delta += sequence.output.append(token)
            if sequence.output.stopped:
                break
        sequence.logprobs += best.logprobs[: len(sequence.generated)]
        sequence.likeliest += best.likeliest[: len(sequence.generated)]
        last = len(best.generated) - 1
        ended = best.generated[last] in self._model.eos_token_ids and not sequence.forces_last_token(last)
        sequence.finish_reason = "stop" if ended or sequence.output.stopped else "length"
        return [self._finish(sequence, delta)]

    def _append(self, sequence: Sequence, chosen: Chosen) -> list[Event]:
        sequence.generated.append(chosen.token)
        if chosen.logprob is not None and sequence.wants_logprobs:
            if math.isnan(chosen.logprob):
                raise ArithmeticError(not_finite(self._model.dtype))
            sequence.logprobs.append(chosen.logprob)
            sequence.likeliest.append(chosen.likeliest)
        delta = sequence.output.append(chosen.token)
        sequence.finish_reason = self._finish_reason(sequence)
        if sequence.finish_reason is not None:
            return [self._finish(sequence, delta)]
        return [Event(sequence, next_chunk(sequence, delta, self._processor))] if delta and sequence.stream else []

    def _finish_reason(self, sequence: Sequence) -> FinishReason | None:
        """Why the last token has ended the answer; None if it goes on."""
        last = len(sequence.generated) - 1
        if sequence.output.stopped:
            return "stop"
        if sequence.generated[last] in self._model.eos_token_ids and sequence.forced_token(last) is None:
            return "stop"
        if last + 1 < (sequence.sampling.max_tokens or 0):
            return None
        return "stop" if last + 1 == sequence.inputs.limit else "length"  # at the task's limit it is complete

    def _finish(self, sequence: Sequence, delta: TextDelta) -> Event:
        self.scheduler.remove(sequence)
        delta += sequence.output.finish()
        if not sequence.stream and sequence.inputs.has_text:
            delta = TextDelta(sequence.output.text)
        return Event(sequence, last_chunk(sequence, delta, self._processor, self._calibration))
