"""Several answers as one: what their tokens cost together, and how answers about several images are put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace

from vlm.confidence import least
from vlm.types import Completion, Detection, FinishReason, Grounding, Timings, Usage

Span = tuple[int, int]


def merged(answers: Sequence[Completion], text: str, grounding: Grounding, usage: Usage) -> Completion:
    """One completion with the tokens of all ``answers``, at least one."""
    return replace(
        answers[0],
        text=text,
        token_ids=tuple(token for one in answers for token in one.token_ids),
        logprobs=tuple(logprob for one in answers for logprob in one.logprobs),
        grounding=grounding,
        finish_reason=_finish_reason(answers),
        usage=usage,
        timings=longest([one.timings for one in answers]),
        ignored=ignored_by_all(answers),
        has_text=any(one.has_text for one in answers),
        token_bytes=tuple(piece for one in answers for piece in one.token_bytes),
        top_logprobs=tuple(step for one in answers for step in one.top_logprobs),
        confidence=least([one.confidence for one in answers if one.has_text]),
    )


def about_one_image(usages: Sequence[Usage]) -> Usage:
    """The image counts once, and as cached only if none of the answers waited for its encode."""
    return replace(
        Usage.sum(usages),
        image_tokens=max(one.image_tokens for one in usages),
        cached_tokens=min(one.cached_tokens for one in usages),
    )


def ignored_by_all(answers: Sequence[Completion]) -> tuple[str, ...]:
    """The fields that none of the answers has used."""
    return tuple(name for name in answers[0].ignored if all(name in one.ignored for one in answers))


def _finish_reason(answers: Sequence[Completion]) -> FinishReason:
    return "length" if any(one.finish_reason == "length" for one in answers) else "stop"


def longest(timings: Sequence[Timings]) -> Timings:
    """The longest of each time, for answers that were generated together."""
    return Timings(*(max(getattr(one, field.name) for one in timings) for field in fields(Timings)))


# Several images


def across_images(answers: Sequence[Completion]) -> Completion:
    """The answers about several images, in order, as one: numbered lines, and objects that know their image."""
    parts = tuple(across_images(of_task) for of_task in zip(*(one.parts for one in answers), strict=True))
    text = _numbered([one.text for one in answers if one.has_text]) or ""
    grounding = parts[0].grounding if parts else _across_images([one.grounding for one in answers])
    return replace(merged(answers, text, grounding, Usage.sum([one.usage for one in answers])), parts=parts)


def _across_images(groundings: Sequence[Grounding]) -> Grounding:
    texts, reasonings = [one.text for one in groundings], [one.reasoning for one in groundings]
    spans_are_in = texts if all(one is None for one in reasonings) else reasonings
    return replace(
        groundings[0],
        text=_numbered(texts),
        reasoning=_numbered(reasonings),
        image_sizes=tuple(size for one in groundings for size in one.sizes),
        detections=tuple(_located(groundings, _offsets(spans_are_in))),
        truncated=any(one.truncated for one in groundings),
        raw="\n".join(one.raw for one in groundings),
        below_threshold=sum(one.below_threshold for one in groundings),
    )


def _located(groundings: Sequence[Grounding], offsets: Sequence[int]) -> Iterable[Detection]:
    for image, (grounding, offset) in enumerate(zip(groundings, offsets, strict=True)):
        for found in grounding.detections:
            spans = tuple((start + offset, end + offset) for start, end in found.spans)
            yield replace(found, image=image, spans=spans)


def _lines(texts: Sequence[str | None]) -> list[tuple[str, str]]:
    """What stands before each text, and the text."""
    return [(f"Image {number}: ", text or "") for number, text in enumerate(texts, 1)]


def _numbered(texts: Sequence[str | None]) -> str | None:
    """The texts as numbered lines; None if there are none."""
    if all(text is None for text in texts):
        return None
    return "\n".join(before + text for before, text in _lines(texts))


def _offsets(texts: Sequence[str | None]) -> list[int]:
    """Where each text begins among the numbered lines."""
    offsets, end = [], 0
    for before, text in _lines(texts):
        offsets.append(end + len(before))
        end += len(before) + len(text) + 1
    return offsets
