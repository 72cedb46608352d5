"""Moondream 2's answers: text, boxes, points and reasoning, read from ids.

What the ids mean is as in ``moondream.py`` in the repository of vikhyatk/moondream2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vlm.confidence import Logprobs, matching, score
from vlm.models.moondream2.locations import LocationIds
from vlm.models.moondream2.vocabulary import Ids
from vlm.models.processor import Parsed
from vlm.types import Box, Detection, Point

Corners = tuple[float, float, float, float]
Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads generated ids.

    Attributes:
        locations: Which ids are coordinates and sizes.
        ids: Which ids are special tokens.
        decode: Ids to text, without special tokens and locations.
    """

    locations: LocationIds
    ids: Ids
    decode: Decode

    def text(self, token_ids: Sequence[int], *, finished: bool) -> Parsed:
        """An answer that is text alone."""
        return Parsed(self.decode(token_ids).strip(), truncated=not finished)

    def boxes(self, token_ids: Sequence[int], logprobs: Logprobs, label: str) -> Parsed:
        """One box for every three ids, clipped to the image."""
        logprobs = matching(token_ids, logprobs)
        found = []
        for index, (x_min, y_min, x_max, y_max) in enumerate(self.corners(token_ids)):
            box = Box.spanning((Point(x_min, y_min), Point(x_max, y_max)))
            steps = logprobs[3 * index : 3 * index + 3]
            found.append(Detection("box", label=label, score=_score(steps), box=box))
        return Parsed(None, tuple(found), truncated=self._is_truncated(token_ids, 3 * len(found)))

    def points(self, token_ids: Sequence[int], logprobs: Logprobs, label: str) -> Parsed:
        """One point for every two ids."""
        logprobs = matching(token_ids, logprobs)
        found = tuple(
            Detection("point", label=label, score=_score(logprobs[2 * index : 2 * index + 2]), point=Point(x, y))
            for index, (x, y) in enumerate(self.pairs(token_ids))
        )
        return Parsed(None, found, truncated=self._is_truncated(token_ids, 2 * len(found)))

    def reasoning(self, token_ids: Sequence[int], logprobs: Logprobs, *, finished: bool) -> Parsed:
        """Reasoning with its points, and the answer after it."""
        has_answer = self.ids.answer in token_ids
        end = token_ids.index(self.ids.answer) if has_answer else len(token_ids)
        reasoning = token_ids[:end]
        answer = self.decode(token_ids[end + 1 :]).strip()
        found = tuple(self._grounded(reasoning, matching(token_ids, logprobs)))
        return Parsed(answer, found, truncated=not finished, reasoning=self.decode(reasoning))

    def corners(self, token_ids: Sequence[int]) -> list[Corners]:
        """Boxes as the model gives them: (x_min, y_min, x_max, y_max), which may extend beyond the image."""
        found = []
        for first in range(0, len(token_ids) - 2, 3):
            x, y = (self.locations.coordinate(token) for token in token_ids[first : first + 2])
            size = self.locations.size(token_ids[first + 2])
            if x is None or y is None or size is None:
                break
            found.append((x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2))
        return found

    def pairs(self, token_ids: Sequence[int]) -> list[tuple[float, float]]:
        """Points as the model gives them, up to the first id that is not a coordinate."""
        found = []
        for first in range(0, len(token_ids) - 1, 2):
            x, y = (self.locations.coordinate(token) for token in token_ids[first : first + 2])
            if x is None or y is None:
                break
            found.append((x, y))
        return found

    def _is_truncated(self, token_ids: Sequence[int], read: int) -> bool:
        """Whether the ids after the first ``read`` are anything but the end."""
        return any(token != self.ids.eos for token in token_ids[read:])

    def _parts(self, token_ids: Sequence[int]) -> list[range]:
        """Indices of the parts of reasoning: each begins with the special token that starts it."""
        starting = (self.ids.start_points, self.ids.end_ground)
        starts = [0, *(index for index, token in enumerate(token_ids) if token in starting)]
        return [range(start, end) for start, end in pairwise([*starts, len(token_ids)])]

    def _grounded(self, token_ids: Sequence[int], logprobs: Logprobs) -> Iterator[Detection]:
        """The points of reasoning, each with the part of the text that names what is there."""
        reasoning = self.decode(token_ids)
        for part in self._parts(token_ids):
            coordinates = [index for index in part if self.locations.coordinate(token_ids[index]) is not None]
            # Offsets are those in the whole text: a special token may be between the bytes of one character.
            start, end = len(self.decode(token_ids[: part.start])), len(self.decode(token_ids[: part.stop]))
            for x, y in zip(coordinates[::2], coordinates[1::2], strict=False):  # an x without y is left out
                [point] = self.pairs([token_ids[x], token_ids[y]])
                yield Detection(
                    "point",
                    label=reasoning[start:end].strip() or None,
                    score=_score([logprobs[index] for index in (x, y) if logprobs]),
                    point=Point(*point),
                    spans=((start, end),),
                )


def _score(steps: Logprobs) -> float | None:
    """The score of an object from the log-probabilities of its steps; a size is one step but two numbers."""
    numbers = [steps[0], steps[1], steps[2] / 2, steps[2] / 2] if len(steps) == 3 else steps
    return score(numbers)
