"""Makes the chunks and the completion that a client gets from a sequence. Pure Python."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from itertools import islice

from vlm.calibration import Calibration
from vlm.engine.output import TextDelta
from vlm.engine.sequence import Sequence
from vlm.models.processor import Processor
from vlm.types import Chunk, Completion, Detection, Grounding, Timings, TopLogprob, Usage


def next_chunk(sequence: Sequence, delta: TextDelta, processor: Processor) -> Chunk:
    """A chunk with ``delta`` and the tokens that no chunk has carried yet."""
    start = sequence.output.report(len(sequence.generated))
    logprobs = sequence.logprobs if sequence.sampling.logprobs else []
    return Chunk(
        delta.text,
        tuple(sequence.generated[start:]),
        tuple(logprobs[start:]),
        reasoning=delta.reasoning,
        token_bytes=_token_bytes(sequence, processor, start),
        top_logprobs=_top_logprobs(sequence, processor, start),
    )


def last_chunk(sequence: Sequence, delta: TextDelta, processor: Processor, calibration: Calibration) -> Chunk:
    """The last chunk, with the whole completion."""
    return replace(next_chunk(sequence, delta, processor), completion=_completion(sequence, processor, calibration))


def _completion(sequence: Sequence, processor: Processor, calibration: Calibration) -> Completion:
    assert sequence.finish_reason is not None
    inputs = sequence.inputs
    return Completion(
        text=sequence.output.text if inputs.has_text else "",
        token_ids=tuple(sequence.generated),
        logprobs=tuple(sequence.logprobs if sequence.sampling.logprobs else ()),
        grounding=_grounding(sequence, processor, calibration),
        finish_reason=sequence.finish_reason,
        usage=_usage(sequence),
        timings=_timings(sequence),
        resolution=inputs.resolution,
        ignored=_ignored(sequence),
        has_text=inputs.has_text,
        token_bytes=_token_bytes(sequence, processor),
        top_logprobs=_top_logprobs(sequence, processor),
        confidence=calibration.of_answer(inputs.task, sequence.logprobs) if sequence.sampling.logprobs else None,
    )


def _token_bytes(sequence: Sequence, processor: Processor, start: int = 0) -> tuple[bytes, ...]:
    """What each token from ``start`` on adds to the output, if log-probabilities were asked for."""
    if not sequence.sampling.logprobs:
        return ()
    tokens = enumerate(sequence.generated[start:], start)
    return tuple(processor.token_bytes(token, islice(sequence.generated, index)) for index, token in tokens)


def _top_logprobs(sequence: Sequence, processor: Processor, start: int = 0) -> tuple[tuple[TopLogprob, ...], ...]:
    """The likeliest tokens of each step from ``start`` on, if they were asked for."""
    if not sequence.sampling.top_logprobs:
        return ()

    def spelled(token: int, logprob: float, index: int) -> TopLogprob:
        return TopLogprob(token, logprob, processor.token_bytes(token, islice(sequence.generated, index)))

    return tuple(
        tuple(spelled(token, logprob, index) for token, logprob in step)
        for index, step in enumerate(sequence.likeliest[start:], start)
    )


def _usage(sequence: Sequence) -> Usage:
    inputs = sequence.inputs
    cached = inputs.image_tokens if sequence.image_cached else 0
    generated = len(sequence.generated)
    return Usage(inputs.image_tokens, inputs.text_tokens, generated, cached, sequence.reasoning_tokens)


def _ignored(sequence: Sequence) -> tuple[str, ...]:
    """The request's fields that had no effect; an answer that is geometry alone has no text for ``stop`` to end."""
    unused = ("stop",) if sequence.sampling.stop and not sequence.inputs.has_text else ()
    return (*sequence.inputs.ignored, *unused)


def _grounding(sequence: Sequence, processor: Processor, calibration: Calibration) -> Grounding:
    inputs = sequence.inputs
    finished = sequence.finish_reason == "stop"
    parsed = processor.parse(sequence.generated, inputs, finished=finished, logprobs=_chosen_logprobs(sequence))
    text = sequence.output.text if inputs.has_text else parsed.text
    length = len((text if parsed.reasoning is None else parsed.reasoning) or "")
    kept = [found for found in parsed.detections if _reaches(found, sequence.threshold)]
    return Grounding(
        task=inputs.task,
        native_task=inputs.native_task,
        text=text,
        image_size=inputs.image_size,
        detections=tuple(
            _judged(_within(_named(one, sequence.label), length), inputs.task, calibration) for one in kept
        ),
        truncated=parsed.truncated,
        raw=processor.decode(sequence.generated, special=True),
        reasoning=parsed.reasoning,
        below_threshold=len(parsed.detections) - len(kept),
    )


def _chosen_logprobs(sequence: Sequence) -> list[float]:
    """The tokens' log-probabilities; nan for a token that was forced, because the model did not choose it."""
    return [
        math.nan if sequence.forced_token(index) is not None else logprob
        for index, logprob in enumerate(sequence.logprobs)
    ]


def _reaches(detection: Detection, threshold: float | None) -> bool:
    """Whether a detection is kept; one without a score cannot be judged and is."""
    return threshold is None or detection.score is None or detection.score >= threshold


def _named(detection: Detection, label: str | None) -> Detection:
    """The detection under the client's own label, whose case and characters a tokenizer may have changed."""
    return detection if label is None else replace(detection, label=label)


def _judged(detection: Detection, task: str, calibration: Calibration) -> Detection:
    """The detection with its confidence."""
    return replace(detection, confidence=calibration.of_object(task, detection.score))


def _within(detection: Detection, length: int) -> Detection:
    """The detection without spans that reach beyond a text of this length, which a stop string may have cut."""
    return replace(detection, spans=tuple(span for span in detection.spans if span[1] <= length))


def _timings(sequence: Sequence) -> Timings:
    now = time.perf_counter()
    started = sequence.started or now
    return Timings(
        prepare_ms=sequence.prepare_ms,
        queue_ms=1000 * (started - sequence.arrived),
        first_token_ms=1000 * ((sequence.first_token or now) - sequence.arrived),
        total_ms=sequence.prepare_ms + 1000 * (now - sequence.arrived),
        encode_ms=sequence.encode_ms,
    )
