"""Generated token ids to labelled places: boxes, phrases of a caption, quadrilaterals of words, and polygons.

Owns the grammar of Florence-2's answers: words followed by location bins. Works on ids, so that no text a model writes
can be taken for a location. Each piece carries its tokens' log-probabilities, which become scores. Agrees with
transformers' Florence2PostProcessor on well-formed output, but keeps full precision and letters beyond ASCII; of
malformed output it drops what is incomplete instead of guessing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field, replace

from vlm.confidence import Logprobs, matching, score
from vlm.models.florence2.vocabulary import BINS, Vocabulary
from vlm.models.processor import Parsed
from vlm.types import Box, Detection, Point

SMALLEST = 6
"""Fewest bins of a polygon: three corners."""


@dataclass(frozen=True, slots=True)
class Run:
    """Words ("" for none) and the bins right after them: ``car<loc_1><loc_2><loc_3><loc_4>``.

    ``word_logprobs`` and ``bin_logprobs`` are of the tokens of either; empty where they are not known.
    """

    words: str
    bins: tuple[int, ...]
    word_logprobs: Logprobs = field(default=(), compare=False)
    bin_logprobs: Logprobs = field(default=(), compare=False)


NAMELESS = Run("", ())


@dataclass(frozen=True, slots=True)
class Place:
    """A label, stripped, the corners that belong to it, and how sure the model was of both."""

    label: str
    corners: tuple[Point, ...]
    score: float | None


@dataclass(frozen=True, slots=True)
class Outline:
    """The runs of one object, one a polygon, and the words that name it: ``a car<poly>..<sep>..</poly>``."""

    named: Run
    polygons: tuple[Run, ...]

    @property
    def words(self) -> str:
        """Its name, "" for none."""
        return self.named.words


def runs(token_ids: Sequence[int], vocabulary: Vocabulary, logprobs: Logprobs = ()) -> tuple[Run, ...]:
    """Cut ids into runs. ``<s>``, ``</s>`` and ``<pad>`` vanish; any other mark ends a run."""
    return tuple(run for run, _ in _cut(token_ids, vocabulary, logprobs) if run.bins or run.words.strip())


def read_boxes(given: Sequence[Run], *, finished: bool) -> Parsed:
    """``<OD>``: four bins (x_min, y_min, x_max, y_max) a box; a label owns all boxes that follow it."""
    found, whole = _places(given, corners=2, several=True)
    return Parsed(None, tuple(_box(place) for place in found), not (whole and finished))


def read_regions(given: Sequence[Run], *, finished: bool) -> Parsed:
    """``<REGION_PROPOSAL>``: boxes as above, but without labels; words have no place in the answer."""
    nameless = [Run(" ", run.bins, bin_logprobs=run.bin_logprobs) for run in given if run.bins]
    found, whole = _places(nameless, corners=2, several=True)
    silent = not any(run.words.strip() for run in given)
    return Parsed(None, tuple(_box(place) for place in found), not (whole and silent and finished))


def read_region_text(given: Sequence[Run], text: str, *, finished: bool) -> Parsed:
    """``<REGION_TO_DESCRIPTION>`` and its like: ``text`` about a region, and then the region itself or nothing.

    The region was asked about, not found: it has no score.
    """
    match [run.bins for run in given]:
        case [*before, (_, _, _, _) as bins] if not any(before):
            box = _box(Place(text, _points(bins), None))
            return Parsed(text, (box,), not finished)
        case every:
            return Parsed(text, truncated=any(every) or not finished)


def read_polygons(
    token_ids: Sequence[int], vocabulary: Vocabulary, logprobs: Logprobs = (), *, named: bool, finished: bool
) -> Parsed:
    """Polygons of at least three corners (x, y), ``<sep>`` between those of one object.

    ``<poly>`` and ``</poly>`` hold an object where there are several, or where it is ``named`` by words before it.
    A corner without its y, and a polygon of fewer corners, are dropped.
    """
    given = list(outlines(token_ids, vocabulary, logprobs))
    found = [_polygon(outline, named) for outline in given]
    whole = _paired(token_ids, vocabulary) and all(_is_whole(outline, named) for outline in given)
    return Parsed(None, tuple(one for one in found if one is not None), not (whole and finished))


def read_boxes_or_polygons(
    token_ids: Sequence[int], vocabulary: Vocabulary, logprobs: Logprobs = (), *, finished: bool
) -> Parsed:
    """``<OPEN_VOCABULARY_DETECTION>``: labelled polygons where there is any ``<poly>``, else boxes as for ``<OD>``."""
    if _id(vocabulary, "<poly>") in token_ids:
        return read_polygons(token_ids, vocabulary, logprobs, named=True, finished=finished)
    return read_boxes(runs(token_ids, vocabulary, logprobs), finished=finished)


def outlines(token_ids: Sequence[int], vocabulary: Vocabulary, logprobs: Logprobs = ()) -> Iterator[Outline]:
    """Cut ids into objects. Words name all groups ``<poly>..</poly>`` up to the next words or other mark."""
    separator, start, end = (_id(vocabulary, mark) for mark in ("<sep>", "<poly>", "</poly>"))
    named, polygons = NAMELESS, list[Run]()
    for run, mark in _cut(token_ids, vocabulary, logprobs):
        if run.words and polygons:  # behind a <sep>
            yield Outline(named, tuple(polygons))
            polygons = []
        named = run if run.words else named
        polygons += [run] if run.bins else []
        if mark == separator and polygons:
            continue
        if polygons or mark == end or (run.words.strip() and mark != start):
            yield Outline(named, tuple(polygons))
        named, polygons = named if mark in (separator, start, end) else NAMELESS, []


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


def _cut(token_ids: Sequence[int], vocabulary: Vocabulary, logprobs: Logprobs) -> Iterator[tuple[Run, int | None]]:
    """Runs, each with the mark that ended it or None where no mark did."""
    known = matching(token_ids, logprobs)
    words: list[int] = []  # places in token_ids, as are bins
    bins: list[int] = []
    for place, token in enumerate(token_ids):
        if token in (vocabulary.bos, vocabulary.eos, vocabulary.pad):
            continue
        if token in vocabulary.bins:
            bins.append(place)
            continue
        if bins or token in vocabulary.marks:
            yield _run(words, bins, token_ids, known, vocabulary), token if token in vocabulary.marks else None
            words, bins = [], []
        if token not in vocabulary.marks:
            words.append(place)
    yield _run(words, bins, token_ids, known, vocabulary), None


def _run(
    words: Sequence[int], bins: Sequence[int], token_ids: Sequence[int], known: Logprobs, vocabulary: Vocabulary
) -> Run:
    """The run of the tokens at these places."""
    return Run(
        vocabulary.decode([token_ids[place] for place in words]),
        tuple(vocabulary.bins[token_ids[place]] for place in bins),
        tuple(known[place] for place in words if known),
        tuple(known[place] for place in bins if known),
    )


def _places(given: Sequence[Run], *, corners: int, several: bool) -> tuple[list[Place], bool]:
    """Places of ``corners`` corners each, and whether they are all that the runs hold."""
    found: list[Place] = []
    size, whole = 2 * corners, True
    for run in given:
        count = len(run.bins) // size if run.words else 0
        count = count if several else min(count, 1)
        whole = whole and count > 0 and len(run.bins) == count * size
        groups = (slice(start, start + size) for start in range(0, count * size, size))
        found += [_place(run, group) for group in groups]
    return found, whole


def _place(run: Run, group: slice) -> Place:
    return Place(run.words.strip(), _points(run.bins[group]), score(run.bin_logprobs[group], run.word_logprobs))


def _points(bins: Sequence[int]) -> tuple[Point, ...]:
    """Centres of the bins, normalised."""
    centres = [(number + 0.5) / BINS for number in bins]
    return tuple(Point(x, y) for x, y in zip(centres[::2], centres[1::2], strict=True))


def _box(place: Place) -> Detection:
    return Detection("box", label=place.label or None, score=place.score, box=Box.spanning(place.corners))


def _quad(place: Place) -> Detection:
    return Detection("quad", text=place.label, score=place.score, box=Box.spanning(place.corners), quad=place.corners)


def _id(vocabulary: Vocabulary, mark: str) -> int | None:
    found: int | None = vocabulary.tokenizer.token_to_id(mark)
    return found


def _paired(token_ids: Sequence[int], vocabulary: Vocabulary) -> bool:
    """Whether each ``<poly>`` is closed before the next one opens."""
    pair = [_id(vocabulary, "<poly>"), _id(vocabulary, "</poly>")]
    marks = [token for token in token_ids if token in pair]
    return marks == pair * (len(marks) // 2)


def _polygon(outline: Outline, named: bool) -> Detection | None:
    whole = [run for run in outline.polygons if len(run.bins) >= SMALLEST]
    if not whole or (named and not outline.words):
        return None
    polygons = tuple(_points(run.bins[: _even(run)]) for run in whole)
    location = [logprob for run in whole for logprob in run.bin_logprobs[: _even(run)]]
    return Detection(
        "polygon",
        label=(named and outline.words.strip()) or None,
        score=score(location, outline.named.word_logprobs if named else ()),
        box=Box.spanning(tuple(corner for polygon in polygons for corner in polygon)),
        polygons=polygons,
    )


def _even(run: Run) -> int:
    """How many of its bins make whole corners."""
    return len(run.bins) // 2 * 2


def _is_whole(outline: Outline, named: bool) -> bool:
    fitting = all(len(run.bins) >= SMALLEST and len(run.bins) % 2 == 0 for run in outline.polygons)
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
