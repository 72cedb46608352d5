"""Generated token ids to labelled places: boxes, phrases of a caption, quadrilaterals of words, and polygons.

Owns the grammar of Florence-2's answers: words followed by location bins. Works on ids, so that no text a model writes
can be taken for a location. Agrees with transformers' Florence2PostProcessor on well-formed output, but keeps full
precision and letters beyond ASCII; of malformed output it drops what is incomplete instead of guessing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace

from vlm.models.base import Parsed
from vlm.models.florence2.vocabulary import BINS, Vocabulary
from vlm.types import Box, Detection, Point

SMALLEST = 6
"""Fewest bins of a polygon: three corners."""


@dataclass(frozen=True, slots=True)
class Run:
    """Words ("" for none) and the bins right after them: ``car<loc_1><loc_2><loc_3><loc_4>``."""

    words: str
    bins: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A label, stripped, and the corners that belong to it."""

    label: str
    corners: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Outline:
    """Words ("" for none) and the bins of each polygon of one object: ``a car<poly>..<sep>..</poly>``."""

    words: str
    polygons: tuple[tuple[int, ...], ...]


def runs(token_ids: Sequence[int], vocabulary: Vocabulary) -> tuple[Run, ...]:
    """Cut ids into runs. ``<s>``, ``</s>`` and ``<pad>`` vanish; any other mark ends a run."""
    return tuple(run for run, _ in _cut(token_ids, vocabulary) if run.bins or run.words.strip())


def read_boxes(given: Sequence[Run], *, finished: bool) -> Parsed:
    """``<OD>``: four bins (x_min, y_min, x_max, y_max) a box; a label owns all boxes that follow it."""
    found, whole = _places(given, corners=2, several=True)
    return Parsed(None, tuple(_box(place) for place in found), not (whole and finished))


def read_regions(given: Sequence[Run], *, finished: bool) -> Parsed:
    """``<REGION_PROPOSAL>``: boxes as above, but without labels; words have no place in the answer."""
    nameless = [Run(" ", run.bins) for run in given if run.bins]
    found, whole = _places(nameless, corners=2, several=True)
    silent = not any(run.words.strip() for run in given)
    return Parsed(None, tuple(_box(place) for place in found), not (whole and silent and finished))


def read_region_text(given: Sequence[Run], text: str, *, finished: bool) -> Parsed:
    """``<REGION_TO_DESCRIPTION>`` and its like: ``text`` about a region, and then the region itself or nothing."""
    match [run.bins for run in given]:
        case [*before, (_, _, _, _) as bins] if not any(before):
            box = _box(Place(text, _points(bins)))
            return Parsed(text, (box,), not finished)
        case every:
            return Parsed(text, truncated=any(every) or not finished)


def read_polygons(token_ids: Sequence[int], vocabulary: Vocabulary, *, named: bool, finished: bool) -> Parsed:
    """Polygons of at least three corners (x, y), ``<sep>`` between those of one object.

    ``<poly>`` and ``</poly>`` hold an object where there are several, or where it is ``named`` by words before it.
    A corner without its y, and a polygon of fewer corners, are dropped.
    """
    given = list(outlines(token_ids, vocabulary))
    found = [_polygon(outline, named) for outline in given]
    whole = _paired(token_ids, vocabulary) and all(_is_whole(outline, named) for outline in given)
    return Parsed(None, tuple(one for one in found if one is not None), not (whole and finished))


def read_boxes_or_polygons(token_ids: Sequence[int], vocabulary: Vocabulary, *, finished: bool) -> Parsed:
    """``<OPEN_VOCABULARY_DETECTION>``: labelled polygons where there is any ``<poly>``, else boxes as for ``<OD>``."""
    if _id(vocabulary, "<poly>") in token_ids:
        return read_polygons(token_ids, vocabulary, named=True, finished=finished)
    return read_boxes(runs(token_ids, vocabulary), finished=finished)


def outlines(token_ids: Sequence[int], vocabulary: Vocabulary) -> Iterator[Outline]:
    """Cut ids into objects. Words name all groups ``<poly>..</poly>`` up to the next words or other mark."""
    separator, start, end = (_id(vocabulary, mark) for mark in ("<sep>", "<poly>", "</poly>"))
    words, polygons = "", list[tuple[int, ...]]()
    for run, mark in _cut(token_ids, vocabulary):
        if run.words and polygons:  # behind a <sep>
            yield Outline(words, tuple(polygons))
            polygons = []
        words = run.words or words
        polygons += [run.bins] if run.bins else []
        if mark == separator and polygons:
            continue
        if polygons or mark == end or (run.words.strip() and mark != start):
            yield Outline(words, tuple(polygons))
        words, polygons = words if mark in (separator, start, end) else "", []


def as_points(parsed: Parsed) -> Parsed:
    """The same answer with the centre of each box for its shape."""
    return replace(parsed, detections=tuple(map(_centre, parsed.detections)))


def read_phrases(given: Sequence[Run], caption: str, dropped: Set[str], *, finished: bool) -> Parsed:
    """``<CAPTION_TO_PHRASE_GROUNDING>``: boxes as above, whose labels are phrases of ``caption``.

    Phrases in ``dropped`` ("it", "the image") name nothing to point at. Each box carries its phrase's span in the
    caption; phrases come in the caption's order, so a repeated one is looked for behind the one before.
    """
    found, whole = _places(given, corners=2, several=True)
    kept = [place for place in found if place.label not in dropped]
    return Parsed(caption, tuple(_spanned(kept, caption)), not (whole and finished))


def read_quads(given: Sequence[Run], *, finished: bool) -> Parsed:
    """``<OCR_WITH_REGION>``: eight bins, the corners (x, y) of one quadrilateral, after the words that it holds."""
    found, whole = _places(given, corners=4, several=False)
    return Parsed(None, tuple(_quad(place) for place in found), not (whole and finished))


def _cut(token_ids: Sequence[int], vocabulary: Vocabulary) -> Iterator[tuple[Run, int | None]]:
    """Runs, each with the mark that ended it or None where no mark did."""
    words: list[int] = []
    bins: list[int] = []
    for token in token_ids:
        if token in (vocabulary.bos, vocabulary.eos, vocabulary.pad):
            continue
        if token in vocabulary.bins:
            bins.append(vocabulary.bins[token])
            continue
        if bins or token in vocabulary.marks:
            yield Run(vocabulary.decode(words), tuple(bins)), token if token in vocabulary.marks else None
            words, bins = [], []
        if token not in vocabulary.marks:
            words.append(token)
    yield Run(vocabulary.decode(words), tuple(bins)), None


def _places(given: Sequence[Run], *, corners: int, several: bool) -> tuple[list[Place], bool]:
    """Places of ``corners`` corners each, and whether they are all that the runs hold."""
    found: list[Place] = []
    size, whole = 2 * corners, True
    for run in given:
        count = len(run.bins) // size if run.words else 0
        count = count if several else min(count, 1)
        whole = whole and count > 0 and len(run.bins) == count * size
        groups = (run.bins[start : start + size] for start in range(0, count * size, size))
        found += [Place(run.words.strip(), _points(group)) for group in groups]
    return found, whole


def _points(bins: Sequence[int]) -> tuple[Point, ...]:
    """Centres of the bins, normalised."""
    centres = [(number + 0.5) / BINS for number in bins]
    return tuple(Point(x, y) for x, y in zip(centres[::2], centres[1::2], strict=True))


def _box(place: Place) -> Detection:
    return Detection("box", label=place.label or None, box=Box.spanning(place.corners))


def _quad(place: Place) -> Detection:
    return Detection("quad", text=place.label, box=Box.spanning(place.corners), quad=place.corners)


def _id(vocabulary: Vocabulary, mark: str) -> int | None:
    found: int | None = vocabulary.tokenizer.token_to_id(mark)
    return found


def _paired(token_ids: Sequence[int], vocabulary: Vocabulary) -> bool:
    """Whether each ``<poly>`` is closed before the next one opens."""
    pair = [_id(vocabulary, "<poly>"), _id(vocabulary, "</poly>")]
    marks = [token for token in token_ids if token in pair]
    return marks == pair * (len(marks) // 2)


def _polygon(outline: Outline, named: bool) -> Detection | None:
    polygons = tuple(_points(bins[: len(bins) // 2 * 2]) for bins in outline.polygons if len(bins) >= SMALLEST)
    if not polygons or (named and not outline.words):
        return None
    box = Box.spanning(tuple(corner for polygon in polygons for corner in polygon))
    return Detection("polygon", label=(named and outline.words.strip()) or None, box=box, polygons=polygons)


def _is_whole(outline: Outline, named: bool) -> bool:
    fitting = all(len(bins) >= SMALLEST and len(bins) % 2 == 0 for bins in outline.polygons)
    return bool(outline.polygons) and fitting and bool(outline.words.strip()) == named


def _centre(found: Detection) -> Detection:
    box = found.box
    point = None if box is None else Point((box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2)
    return replace(found, kind="point", point=point, polygons=None)


def _spanned(places: Sequence[Place], caption: str) -> Iterator[Detection]:
    span: tuple[int, int] | None = None
    label: str | None = None
    for place in places:
        if place.label != label:
            label = place.label
            span = _find(label, caption, span[1] if span else 0) or _find(label, caption, 0)
        yield replace(_box(place), spans=(span,) if span else ())


def _find(phrase: str, caption: str, start: int) -> tuple[int, int] | None:
    if not phrase:
        return None
    found = re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)", re.IGNORECASE).search(caption, start)
    return found.span() if found else None
