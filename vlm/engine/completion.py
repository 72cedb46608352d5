"""Turns a finished sequence into the answer that its client gets. Pure Python."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from vlm.engine.sequence import Sequence, TextDelta
from vlm.models.processor import Processor
from vlm.types import Chunk, Completion, Detection, Grounding, Timings, Usage


def next_chunk(sequence: Sequence, said: TextDelta) -> Chunk:
    """A chunk with what was ``said`` and the tokens that no chunk has carried yet."""
    start, sequence.reported = sequence.reported, len(sequence.generated)
    logprobs = sequence.logprobs if sequence.sampling.logprobs else []
    return Chunk(said.text, tuple(sequence.generated[start:]), tuple(logprobs[start:]), reasoning=said.reasoning)


def last_chunk(sequence: Sequence, said: TextDelta, processor: Processor) -> Chunk:
    """The last chunk: the rest of what is said and the whole completion."""
    return replace(next_chunk(sequence, said), completion=_completion(sequence, processor))


def _completion(sequence: Sequence, processor: Processor) -> Completion:
    assert sequence.finish_reason is not None
    inputs = sequence.inputs
    return Completion(
        text=sequence.text.text if inputs.has_text else "",
        token_ids=tuple(sequence.generated),
        logprobs=tuple(sequence.logprobs if sequence.sampling.logprobs else ()),
        grounding=_grounding(sequence, processor),
        finish_reason=sequence.finish_reason,
        usage=_usage(sequence),
        timings=_timings(sequence),
        resolution=inputs.resolution,
        ignored=_ignored(sequence),
        has_text=inputs.has_text,
    )


def _usage(sequence: Sequence) -> Usage:
    inputs = sequence.inputs
    cached = inputs.image_tokens if sequence.image_cached else 0
    written = len(sequence.generated)
    return Usage(inputs.image_tokens, inputs.text_tokens, written, cached, sequence.reasoning_tokens)


def _ignored(sequence: Sequence) -> tuple[str, ...]:
    """What the answer does not use: an answer of geometry has no text to stop in."""
    unused = ("stop",) if sequence.sampling.stop and not sequence.inputs.has_text else ()
    return (*sequence.inputs.ignored, *unused)


def _grounding(sequence: Sequence, processor: Processor) -> Grounding:
    inputs = sequence.inputs
    finished = sequence.finish_reason == "stop"
    parsed = processor.parse(sequence.generated, inputs, finished=finished, logprobs=_chosen(sequence))
    text = sequence.text.text if inputs.has_text else parsed.text
    length = len((text if parsed.reasoning is None else parsed.reasoning) or "")
    return Grounding(
        task=inputs.task,
        native_task=inputs.native_task,
        text=text,
        image_size=inputs.image_size,
        detections=tuple(_within(found, length) for found in parsed.detections if _is_kept(found, sequence.threshold)),
        truncated=parsed.truncated,
        raw=processor.decode(sequence.generated, special=True),
        reasoning=parsed.reasoning,
    )


def _chosen(sequence: Sequence) -> list[float]:
    """Its log-probabilities, nan where a token was forced: the model did not choose it."""
    sampling, known = sequence.sampling, sequence.logprobs
    first = len(sampling.forced_tokens or ())
    chosen = [math.nan] * len(known[:first]) + known[first:]
    if chosen and sampling.forced_last_token is not None and len(chosen) == sampling.max_tokens:
        chosen[-1] = math.nan
    return chosen


def _is_kept(detection: Detection, threshold: float | None) -> bool:
    """Whether it is sure enough; one without a score cannot be judged and stays."""
    return threshold is None or detection.score is None or detection.score >= threshold


def _within(detection: Detection, length: int) -> Detection:
    """Without the spans that lie beyond a text of that length: a stop string may have cut it."""
    return replace(detection, spans=tuple(span for span in detection.spans if span[1] <= length))


def _timings(sequence: Sequence) -> Timings:
    now = time.perf_counter()
    started = sequence.started or now
    return Timings(
        prepare_ms=sequence.prepare_ms,
        queue_ms=1000 * (started - sequence.arrived),
        first_token_ms=1000 * ((sequence.first_token or now) - sequence.arrived),
        total_ms=sequence.prepare_ms + 1000 * (now - sequence.arrived),
    )
