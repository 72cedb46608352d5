"""Kosmos-2's answers: words, and which of them are tied to which boxes.

``<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>`` says that the words "a fire" stand for
what lies between two cells of the grid. Owns what such a sequence means, as transformers' Kosmos2Processor reads it.
Knows no images and no prompts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from vlm.confidence import Logprobs, matching, score
from vlm.models.kosmos2.vocabulary import GRID, Vocabulary
from vlm.models.processor import Parsed
from vlm.types import Box, Detection, Point

_LETTERS = {
    "<phrase>": "P", "</phrase>": "p", "<object>": "O", "</object>": "o", "</delimiter_of_multi_objects/>": "d",
}  # fmt: skip
_ENTITY = re.compile(r"(?:P(w+)p)?O((?:ccd)*cc)o")
_WELL_FORMED = re.compile(r"(?:w|-|Pw*p|(?:Pw+p)?O(?:ccd)*cco)*")


@dataclass(frozen=True, slots=True)
class _Text:
    """Ids, and what they say; their tags are told apart by one letter an id.

    ``logprobs`` has one for each id, or is empty.
    """

    ids: Sequence[int]
    vocabulary: Vocabulary
    logprobs: Logprobs

    @property
    def letters(self) -> str:
        """``P p O o d`` for tags, ``c`` for a cell, ``w`` for a word, ``-`` for other tags."""
        tags = {self.vocabulary.tags[token]: letter for token, letter in _LETTERS.items()}
        cells, marks = self.vocabulary.cells, self.vocabulary.marks
        return "".join(tags.get(token, "c" if token in cells else "-" if token in marks else "w") for token in self.ids)

    @property
    def words(self) -> str:
        return self.vocabulary.decode(self.ids)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The words of ``ids[start:end]`` as offsets into all words, both without the space around them."""
        first, last = (len(self.vocabulary.decode(self.ids[:place])) for place in (start, end))
        words = self.words
        margin = len(words) - len(words.lstrip())
        phrase = words[first:last]
        return first + len(phrase) - len(phrase.lstrip()) - margin, first + len(phrase.rstrip()) - margin


def read(token_ids: Sequence[int], vocabulary: Vocabulary, logprobs: Logprobs = (), *, finished: bool) -> Parsed:
    """Clean text and its boxes; what is not well formed is left out, and ``truncated`` says so."""
    text = _without_specials(token_ids, vocabulary, matching(token_ids, logprobs))
    letters = text.letters
    found = tuple(one for match in _ENTITY.finditer(letters) for one in _detections(match, text))
    return Parsed(text.words.strip(), found, truncated=not (finished and _WELL_FORMED.fullmatch(letters)))


def _without_specials(token_ids: Sequence[int], vocabulary: Vocabulary, logprobs: Logprobs) -> _Text:
    specials = vocabulary.marks - vocabulary.cells.keys() - set(vocabulary.tags.values())
    kept = [place for place, token in enumerate(token_ids) if token not in specials]
    return _Text([token_ids[place] for place in kept], vocabulary, [logprobs[place] for place in kept if logprobs])


def _detections(match: re.Match[str], text: _Text) -> list[Detection]:
    """One for each box; several share the phrase before them, if there is one that has any letters."""
    start, end = match.span(1)
    words = text.vocabulary.decode(text.ids[start:end]).strip() if match.group(1) else ""
    spans = (text.span(start, end),) if words else ()
    phrase = text.logprobs[start:end] if words else ()
    known = text.vocabulary.cells
    cells = [place for place in range(*match.span(2)) if text.ids[place] in known]
    return [
        Detection(
            "box",
            label=words or None,
            score=score(text.logprobs[first : first + 2], phrase),  # its cells stand side by side
            box=box_between(known[text.ids[first]], known[text.ids[last]]),
            spans=spans,
        )
        for first, last in zip(cells[::2], cells[1::2], strict=True)
    ]


def box_between(upper_left: int, lower_right: int) -> Box:
    """From the middle of one cell to the middle of the other; all of both where they share a row or a column."""
    (top, left), (bottom, right) = divmod(upper_left, GRID), divmod(lower_right, GRID)
    start, end = (0.0, 1.0) if left == right or top == bottom else (0.5, 0.5)
    corners = (Point((left + start) / GRID, (top + start) / GRID), Point((right + end) / GRID, (bottom + end) / GRID))
    return Box.spanning(corners)


def cells_of(region: Box) -> tuple[int, int]:
    """The cells in which the region's upper left and lower right corners lie: what the model is told of a region."""
    left, top = (min(GRID - 1, max(0, math.floor(side * GRID))) for side in (region.x_min, region.y_min))
    right, bottom = (min(GRID - 1, math.ceil(side * GRID - 1)) for side in (region.x_max, region.y_max))
    return top * GRID + left, max(top, bottom) * GRID + max(left, right)
