"""Pages of many words: images that teach a vision encoder its letters, ten times as many an image as the world's.

They look as the world does, but hold no shapes and nothing is said about them. Nobody is examined on them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from training.data.scenes import Scene, Word
from training.data.world import Draft
from vlm.types import Box

_WORDS, _PLACES = 7, 12
"""So many words are tried, each in so many places."""


def page(seed: int) -> Scene:
    """The page of a seed: always the same one, with two words at least."""
    rng = random.Random(f"page {seed}")
    while True:
        draft = Draft(rng)
        background = draft.background()
        drawn = (draft.word(background) for _ in range(_WORDS))
        words = [placed for word in drawn if word for placed in _placed(word, draft)]
        if len(words) > 1:
            return draft.finished(background, (), words)


def _placed(word: Word, draft: Draft) -> Iterator[Word]:
    """The word where nothing else is, if there is such a place."""
    width, height = word.box.x_max - word.box.x_min, word.box.y_max - word.box.y_min
    for _ in range(_PLACES):
        x, y = draft.rng.uniform(0.02, 0.98 - width), draft.rng.uniform(0.02, 0.98 - height)
        box = Box(x, y, x + width, y + height)
        if draft.take(box):
            yield replace(word, box=box)
            return
