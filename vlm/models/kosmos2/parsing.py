"""Kosmos-2's answers: text whose phrases are linked to boxes.

``<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>`` links the text "a fire" to the box
between two cells of the grid. Read as transformers' ``Kosmos2Processor.post_process_generation`` does, but from ids.
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
class _Tokens:
    """The ids of an answer, with one letter for each, so that regular expressions find its structure.

    ``logprobs`` has one for each id, or is empty.
    """

    ids: Sequence[int]
    vocabulary: Vocabulary
    logprobs: Logprobs

    @property
    def letters(self) -> str:
        """``P p O o d`` for tags, ``c`` for a cell, ``w`` for text, ``-`` for other tags."""
        tags = {self.vocabulary.tags[token]: letter for token, letter in _LETTERS.items()}
        cells, special = self.vocabulary.cells, self.vocabulary.special_tokens
        return "".join(
            tags.get(token, "c" if token in cells else "-" if token in special else "w") for token in self.ids
        )

    @property
    def text(self) -> str:
        return self.vocabulary.decode(self.ids)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Offsets of the text of ``ids[start:end]`` in the whole text, both without the space around them."""
        first, last = (len(self.vocabulary.decode(self.ids[:index])) for index in (start, end))
        text = self.text
        margin = len(text) - len(text.lstrip())
        phrase = text[first:last]
        return first + len(phrase) - len(phrase.lstrip()) - margin, first + len(phrase.rstrip()) - margin


def read(token_ids: Sequence[int], vocabulary: Vocabulary, logprobs: Logprobs = (), *, finished: bool) -> Parsed:
    """The text and its boxes; what is malformed is left out, and the answer is then ``truncated``."""
    tokens = _without_special_tokens(token_ids, vocabulary, matching(token_ids, logprobs))
    letters = tokens.letters
    found = tuple(one for match in _ENTITY.finditer(letters) for one in _detections(match, tokens))
    return Parsed(tokens.text.strip(), found, truncated=not (finished and _WELL_FORMED.fullmatch(letters)))


def _without_special_tokens(token_ids: Sequence[int], vocabulary: Vocabulary, logprobs: Logprobs) -> _Tokens:
    dropped = vocabulary.special_tokens - vocabulary.cells.keys() - set(vocabulary.tags.values())
    kept = [index for index, token in enumerate(token_ids) if token not in dropped]
    return _Tokens([token_ids[index] for index in kept], vocabulary, [logprobs[index] for index in kept if logprobs])


def _detections(match: re.Match[str], tokens: _Tokens) -> list[Detection]:
    """One for each box of an entity; all share the phrase before them, if there is one that is not blank."""
    start, end = match.span(1)
    phrase = tokens.vocabulary.decode(tokens.ids[start:end]).strip() if match.group(1) else ""
    spans = (tokens.span(start, end),) if phrase else ()
    phrase_logprobs = tokens.logprobs[start:end] if phrase else ()
    cell_of = tokens.vocabulary.cells
    cells = [index for index in range(*match.span(2)) if tokens.ids[index] in cell_of]
    return [
        Detection(
            "box",
            label=phrase or None,
            score=score(tokens.logprobs[first : first + 2], phrase_logprobs),  # a box's two cells are neighbours
            box=box_between(cell_of[tokens.ids[first]], cell_of[tokens.ids[last]]),
            spans=spans,
        )
        for first, last in zip(cells[::2], cells[1::2], strict=True)
    ]


def box_between(upper_left: int, lower_right: int) -> Box:
    """From the middle of one cell to the middle of the other; whole cells where both are in one row or column."""
    (top, left), (bottom, right) = divmod(upper_left, GRID), divmod(lower_right, GRID)
    start, end = (0.0, 1.0) if left == right or top == bottom else (0.5, 0.5)
    corners = (Point((left + start) / GRID, (top + start) / GRID), Point((right + end) / GRID, (bottom + end) / GRID))
    return Box.spanning(corners)


def cells_of(region: Box) -> tuple[int, int]:
    """The cells that contain the region's upper left and lower right corner: how a region is given to the model."""
    left, top = (min(GRID - 1, max(0, math.floor(side * GRID))) for side in (region.x_min, region.y_min))
    right, bottom = (min(GRID - 1, math.ceil(side * GRID - 1)) for side in (region.x_max, region.y_max))
    return top * GRID + left, max(top, bottom) * GRID + max(left, right)
