"""Moondream 2's answers: objects, points, and what was thought, out of ids.

Owns what such ids mean, as the original reads them. Knows no images and no prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vlm.confidence import Logprobs, matching, score
from vlm.models.moondream2.locations import PlaceIds
from vlm.models.moondream2.vocabulary import Ids
from vlm.models.processor import Parsed
from vlm.types import Box, Detection, Point

Corners = tuple[float, float, float, float]
Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads what the model has written.

    Attributes:
        places: Which ids are places.
        ids: Which are marks.
        decode: Ids to text, without marks and places.
    """

    places: PlaceIds
    ids: Ids
    decode: Decode

    def text(self, token_ids: Sequence[int], *, finished: bool) -> Parsed:
        """An answer that is all words."""
        return Parsed(self.decode(token_ids).strip(), truncated=not finished)

    def boxes(self, token_ids: Sequence[int], logprobs: Logprobs, label: str) -> Parsed:
        """One box for each three ids, clipped to the image."""
        logprobs = matching(token_ids, logprobs)
        found = []
        for place, (x_min, y_min, x_max, y_max) in enumerate(self.corners(token_ids)):
            box = Box.spanning((Point(x_min, y_min), Point(x_max, y_max)))
            steps = logprobs[3 * place : 3 * place + 3]
            found.append(Detection("box", label=label, score=_score(steps), box=box))
        return Parsed(None, tuple(found), truncated=self._is_cut(token_ids, 3 * len(found)))

    def points(self, token_ids: Sequence[int], logprobs: Logprobs, label: str) -> Parsed:
        """One point for each two ids."""
        logprobs = matching(token_ids, logprobs)
        found = tuple(
            Detection("point", label=label, score=_score(logprobs[2 * place : 2 * place + 2]), point=Point(x, y))
            for place, (x, y) in enumerate(self.pairs(token_ids))
        )
        return Parsed(None, found, truncated=self._is_cut(token_ids, 2 * len(found)))

    def thought(self, token_ids: Sequence[int], logprobs: Logprobs, *, finished: bool) -> Parsed:
        """What was thought, with its points, and the answer after it."""
        answered = self.ids.answer in token_ids
        end = token_ids.index(self.ids.answer) if answered else len(token_ids)
        thought = token_ids[:end]
        answer = self.decode(token_ids[end + 1 :]).strip()
        found = tuple(self._grounded(thought, matching(token_ids, logprobs)))
        return Parsed(answer, found, truncated=not finished, reasoning=self.decode(thought))

    def corners(self, token_ids: Sequence[int]) -> list[Corners]:
        """Boxes as the model gives them: (x_min, y_min, x_max, y_max), which may reach beyond the image."""
        found = []
        for first in range(0, len(token_ids) - 2, 3):
            x, y = (self.places.coordinate(token) for token in token_ids[first : first + 2])
            size = self.places.size(token_ids[first + 2])
            if x is None or y is None or size is None:
                break
            found.append((x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2))
        return found

    def pairs(self, token_ids: Sequence[int]) -> list[tuple[float, float]]:
        """Points as the model gives them, up to the first id that is no coordinate."""
        found = []
        for first in range(0, len(token_ids) - 1, 2):
            x, y = (self.places.coordinate(token) for token in token_ids[first : first + 2])
            if x is None or y is None:
                break
            found.append((x, y))
        return found

    def _is_cut(self, token_ids: Sequence[int], read: int) -> bool:
        """Whether anything but the end stands after what was read."""
        return any(token != self.ids.eos for token in token_ids[read:])

    def _parts(self, token_ids: Sequence[int]) -> list[range]:
        """Places in parts: each mark that begins one belongs to it."""
        marks = (self.ids.start_points, self.ids.end_ground)
        starts = [0, *(place for place, token in enumerate(token_ids) if token in marks)]
        return [range(start, end) for start, end in pairwise([*starts, len(token_ids)])]

    def _grounded(self, thought: Sequence[int], logprobs: Logprobs) -> Iterator[Detection]:
        """Its points, each with the part of it that names what is there."""
        reasoning = self.decode(thought)
        for part in self._parts(thought):
            spoken = [place for place in part if self.places.coordinate(thought[place]) is not None]
            # Of the whole thought's text: a mark may stand between the bytes of one character.
            start, end = len(self.decode(thought[: part.start])), len(self.decode(thought[: part.stop]))
            for x, y in zip(spoken[::2], spoken[1::2], strict=False):  # an odd one at the end means nothing
                [point] = self.pairs([thought[x], thought[y]])
                yield Detection(
                    "point",
                    label=reasoning[start:end].strip() or None,
                    score=_score([logprobs[place] for place in (x, y) if logprobs]),
                    point=Point(*point),
                    spans=((start, end),),
                )


def _score(steps: Logprobs) -> float | None:
    """Of an object by its steps: the mean of what each number had, where a size is one step but two numbers."""
    numbers = [steps[0], steps[1], steps[2] / 2, steps[2] / 2] if len(steps) == 3 else steps
    return score(numbers)
