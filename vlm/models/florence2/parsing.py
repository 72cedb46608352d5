"""Generated token ids to labelled places: boxes, phrases of a caption, and words with their quadrilaterals.

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


def runs(token_ids: Sequence[int], vocabulary: Vocabulary) -> tuple[Run, ...]:
    """Cut ids into runs. ``<s>``, ``</s>`` and ``<pad>`` vanish; any other mark ends a run."""
    return tuple(run for run in _cut(token_ids, vocabulary) if run.bins or run.words.strip())


def read_boxes(given: Sequence[Run], *, finished: bool) -> Parsed:
    """``<OD>``: four bins (x_min, y_min, x_max, y_max) a box; a label owns all boxes that follow it."""
    found, whole = _places(given, corners=2, several=True)
    return Parsed(None, tuple(_box(place) for place in found), not (whole and finished))


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


def _cut(token_ids: Sequence[int], vocabulary: Vocabulary) -> Iterator[Run]:
    words: list[int] = []
    bins: list[int] = []
    for token in token_ids:
        if token in (vocabulary.bos, vocabulary.eos, vocabulary.pad):
            continue
        if token in vocabulary.bins:
            bins.append(vocabulary.bins[token])
            continue
        if bins or token in vocabulary.marks:
            yield Run(vocabulary.decode(words), tuple(bins))
            words, bins = [], []
        if token not in vocabulary.marks:
            words.append(token)
    yield Run(vocabulary.decode(words), tuple(bins))


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
