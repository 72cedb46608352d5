"""Florence-2's answers: labelled boxes, phrases of a caption, quadrilaterals around text, and polygons.

An answer is text followed by location bins, again and again. It is read from ids and not from decoded text, so that no
text that a model writes is taken for a location, and so that the tokens' log-probabilities can become scores. On
well-formed output the result is that of transformers' ``Florence2PostProcessor``, but with full precision and with
letters beyond ASCII; of malformed output, what is incomplete is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field, replace

from vlm.confidence import Logprobs, matching, score
from vlm.models.florence2.vocabulary import BINS, Vocabulary
from vlm.models.processor import Parsed
from vlm.types import Box, Detection, Point

MIN_POLYGON_BINS = 6
"""Three corners."""


@dataclass(frozen=True, slots=True)
class Run:
    """Text ("" for none) and the bins right after it: ``car<loc_1><loc_2><loc_3><loc_4>``.

    ``text_logprobs`` and ``bin_logprobs`` are those of the tokens of the text and of the bins; empty if not known.
    """

    text: str
    bins: tuple[int, ...]
    text_logprobs: Logprobs = field(default=(), compare=False)
    bin_logprobs: Logprobs = field(default=(), compare=False)


UNLABELLED = Run("", ())


@dataclass(frozen=True, slots=True)
class LabelledCorners:
    """A label without the space around it, the corners of one object, and the score of both."""

    label: str
    corners: tuple[Point, ...]
    score: float | None


@dataclass(frozen=True, slots=True)
class Outline:
    """The label of one object and its polygons, a run each: ``a car<poly>..<sep>..</poly>``."""

    label: Run
    polygons: tuple[Run, ...]


def runs(token_ids: Sequence[int], vocabulary: Vocabulary, logprobs: Logprobs = ()) -> tuple[Run, ...]:
    """Split ids into runs. ``<s>``, ``</s>`` and ``<pad>`` are skipped; any other special token ends a run."""
    return tuple(run for run, _ in _split(token_ids, vocabulary, logprobs) if run.bins or run.text.strip())


def read_boxes(given: Sequence[Run], *, finished: bool) -> Parsed:
    """``<OD>``: four bins (x_min, y_min, x_max, y_max) for a box; a label holds for all boxes that follow it."""
    found, complete = _labelled_corners(given, corners=2, several=True)
    return Parsed(None, tuple(map(_box, found)), not (complete and finished))


def read_regions(given: Sequence[Run], *, finished: bool) -> Parsed:
    """``<REGION_PROPOSAL>``: boxes as for ``<OD>`` but without labels; an answer with text is malformed."""
    unlabelled = [Run(" ", run.bins, bin_logprobs=run.bin_logprobs) for run in given if run.bins]
    found, complete = _labelled_corners(unlabelled, corners=2, several=True)
    has_text = any(run.text.strip() for run in given)
    return Parsed(None, tuple(map(_box, found)), not (complete and finished) or has_text)


def read_region_text(given: Sequence[Run], text: str, *, finished: bool) -> Parsed:
    """``<REGION_TO_DESCRIPTION>`` and similar tasks: ``text`` about a region, then perhaps the region itself.

    The region comes from the request, so it has no score.
    """
    match [run.bins for run in given]:
        case [*before, (_, _, _, _) as bins] if not any(before):
            box = _box(LabelledCorners(text, _points(bins), None))
            return Parsed(text, (box,), not finished)
        case bins_of_runs:
            return Parsed(text, truncated=any(bins_of_runs) or not finished)


def read_polygons(
    token_ids: Sequence[int], vocabulary: Vocabulary, logprobs: Logprobs = (), *, labelled: bool, finished: bool
) -> Parsed:
    """Polygons of at least three corners (x, y), with ``<sep>`` between those of one object.

    ``<poly>`` and ``</poly>`` enclose an object where there are several, or where it is ``labelled`` by text before it.
    A corner without its y, and a polygon of fewer corners, are left out.
    """
    given = list(outlines(token_ids, vocabulary, logprobs))
    found = [_polygon(outline, labelled) for outline in given]
    complete = _are_paired(token_ids, vocabulary) and all(_is_complete(outline, labelled) for outline in given)
    return Parsed(None, tuple(one for one in found if one is not None), not (complete and finished))


def read_boxes_or_polygons(
    token_ids: Sequence[int], vocabulary: Vocabulary, logprobs: Logprobs = (), *, finished: bool
) -> Parsed:
    """``<OPEN_VOCABULARY_DETECTION>``: labelled polygons if there is a ``<poly>``, else boxes as for ``<OD>``."""
    if _id(vocabulary, "<poly>") in token_ids:
        return read_polygons(token_ids, vocabulary, logprobs, labelled=True, finished=finished)
    return read_boxes(runs(token_ids, vocabulary, logprobs), finished=finished)


def outlines(token_ids: Sequence[int], vocabulary: Vocabulary, logprobs: Logprobs = ()) -> Iterator[Outline]:
    """Split ids into objects. A label holds for all groups ``<poly>..</poly>`` up to other text or special tokens."""
    separator, start, end = (_id(vocabulary, token) for token in ("<sep>", "<poly>", "</poly>"))
    label, polygons = UNLABELLED, list[Run]()
    for run, ended_by in _split(token_ids, vocabulary, logprobs):
        if run.text and polygons:  # after a <sep>
            yield Outline(label, tuple(polygons))
            polygons = []
        label = run if run.text else label
        polygons += [run] if run.bins else []
        if ended_by == separator and polygons:
            continue
        if polygons or ended_by == end or (run.text.strip() and ended_by != start):
            yield Outline(label, tuple(polygons))
        label, polygons = label if ended_by in (separator, start, end) else UNLABELLED, []


def as_points(parsed: Parsed) -> Parsed:
    """The same answer with points, the centre of each box, in place of its shapes."""
    return replace(parsed, detections=tuple(map(_centre, parsed.detections)))


def read_phrases(given: Sequence[Run], caption: str, dropped: Set[str], *, finished: bool) -> Parsed:
    """``<CAPTION_TO_PHRASE_GROUNDING>``: boxes as for ``<OD>``, whose labels are phrases of ``caption``.

    Phrases in ``dropped`` ("it", "the image") are left out. Each box has the span of its phrase in the caption; phrases
    come in the caption's order, so one that occurs again is searched for after the phrase before it.
    """
    found, complete = _labelled_corners(given, corners=2, several=True)
    kept = [one for one in found if one.label not in dropped]
    return Parsed(caption, tuple(_spanned(kept, caption)), not (complete and finished))


def read_quads(given: Sequence[Run], *, finished: bool) -> Parsed:
    """``<OCR_WITH_REGION>``: a text and eight bins, the corners (x, y) of the quadrilateral around it."""
    found, complete = _labelled_corners(given, corners=4, several=False)
    return Parsed(None, tuple(map(_quad, found)), not (complete and finished))


def _split(token_ids: Sequence[int], vocabulary: Vocabulary, logprobs: Logprobs) -> Iterator[tuple[Run, int | None]]:
    """Runs, each with the special token that ended it, or None if none did."""
    logprobs, special = matching(token_ids, logprobs), vocabulary.special_tokens
    text: list[int] = []  # indices in token_ids, as are bins
    bins: list[int] = []
    for index, token in enumerate(token_ids):
        if token in (vocabulary.bos, vocabulary.eos, vocabulary.pad):
            continue
        if token in vocabulary.bins:
            bins.append(index)
            continue
        if bins or token in special:
            yield _run(text, bins, token_ids, logprobs, vocabulary), token if token in special else None
            text, bins = [], []
        if token not in special:
            text.append(index)
    yield _run(text, bins, token_ids, logprobs, vocabulary), None


def _run(
    text: Sequence[int], bins: Sequence[int], token_ids: Sequence[int], logprobs: Logprobs, vocabulary: Vocabulary
) -> Run:
    """The run of the tokens at these indices."""
    return Run(
        vocabulary.decode([token_ids[index] for index in text]),
        tuple(vocabulary.bins[token_ids[index]] for index in bins),
        tuple(logprobs[index] for index in text if logprobs),
        tuple(logprobs[index] for index in bins if logprobs),
    )


def _labelled_corners(given: Sequence[Run], *, corners: int, several: bool) -> tuple[list[LabelledCorners], bool]:
    """Objects of so many ``corners`` each, one or ``several`` a label, and whether the runs hold nothing else."""
    found: list[LabelledCorners] = []
    size, complete = 2 * corners, True
    for run in given:
        count = len(run.bins) // size if run.text else 0
        count = count if several else min(count, 1)
        complete = complete and count > 0 and len(run.bins) == count * size
        groups = (slice(start, start + size) for start in range(0, count * size, size))
        found += [_object(run, group) for group in groups]
    return found, complete


def _object(run: Run, group: slice) -> LabelledCorners:
    return LabelledCorners(
        run.text.strip(), _points(run.bins[group]), score(run.bin_logprobs[group], run.text_logprobs)
    )


def _points(bins: Sequence[int]) -> tuple[Point, ...]:
    """Centres of the bins, normalised."""
    centres = [(number + 0.5) / BINS for number in bins]
    return tuple(Point(x, y) for x, y in zip(centres[::2], centres[1::2], strict=True))


def _box(one: LabelledCorners) -> Detection:
    return Detection("box", label=one.label or None, score=one.score, box=Box.spanning(one.corners))


def _quad(one: LabelledCorners) -> Detection:
    return Detection("quad", text=one.label, score=one.score, box=Box.spanning(one.corners), quad=one.corners)


def _id(vocabulary: Vocabulary, token: str) -> int | None:
    found: int | None = vocabulary.tokenizer.token_to_id(token)
    return found


def _are_paired(token_ids: Sequence[int], vocabulary: Vocabulary) -> bool:
    """Whether each ``<poly>`` is closed before the next one opens."""
    pair = [_id(vocabulary, "<poly>"), _id(vocabulary, "</poly>")]
    found = [token for token in token_ids if token in pair]
    return found == pair * (len(found) // 2)


def _polygon(outline: Outline, labelled: bool) -> Detection | None:
    complete = [run for run in outline.polygons if len(run.bins) >= MIN_POLYGON_BINS]
    if not complete or (labelled and not outline.label.text):
        return None
    polygons = tuple(_points(run.bins[: _even(run)]) for run in complete)
    location = [logprob for run in complete for logprob in run.bin_logprobs[: _even(run)]]
    return Detection(
        "polygon",
        label=(labelled and outline.label.text.strip()) or None,
        score=score(location, outline.label.text_logprobs if labelled else ()),
        box=Box.spanning(tuple(corner for polygon in polygons for corner in polygon)),
        polygons=polygons,
    )


def _even(run: Run) -> int:
    """Number of the run's bins that form complete corners."""
    return len(run.bins) // 2 * 2


def _is_complete(outline: Outline, labelled: bool) -> bool:
    fits = all(len(run.bins) >= MIN_POLYGON_BINS and len(run.bins) % 2 == 0 for run in outline.polygons)
    return bool(outline.polygons) and fits and bool(outline.label.text.strip()) == labelled


def _centre(found: Detection) -> Detection:
    box = found.box
    point = None if box is None else Point((box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2)
    return replace(found, kind="point", point=point, polygons=None)


def _spanned(phrases: Sequence[LabelledCorners], caption: str) -> Iterator[Detection]:
    span: tuple[int, int] | None = None
    label: str | None = None
    for one in phrases:
        if one.label != label:
            label = one.label
            span = _find(label, caption, span[1] if span else 0) or _find(label, caption, 0)
        yield replace(_box(one), spans=(span,) if span else ())


def _find(phrase: str, caption: str, start: int) -> tuple[int, int] | None:
    if not phrase:
        return None
    found = re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)", re.IGNORECASE).search(caption, start)
    return found.span() if found else None
