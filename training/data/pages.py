"""Pages of several words, which teach a vision encoder letters: ten times as many per image as scenes do.

They look like scenes, but have no shapes. Only the grid head is trained on them, and no evaluation uses them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from training.data.scenes import Scene, Word
from training.data.world import Draft
from vlm.types import Box

_WORDS, _ATTEMPTS = 7, 12
"""How many words a page has at most, and how many positions are tried for each."""


def page(seed: int) -> Scene:
    """The page of a seed, always the same one, with at least two words."""
    rng = random.Random(f"page {seed}")
    while True:
        draft = Draft(rng)
        background = draft.background()
        candidates = (draft.word(background) for _ in range(_WORDS))
        words = [placed for word in candidates if word for placed in _positioned(word, draft)]
        if len(words) > 1:
            return draft.finished(background, (), words)


def _positioned(word: Word, draft: Draft) -> Iterator[Word]:
    """The word at a free position; nothing if none was found."""
    width, height = word.box.x_max - word.box.x_min, word.box.y_max - word.box.y_min
    for _ in range(_ATTEMPTS):
        x, y = draft.rng.uniform(0.02, 0.98 - width), draft.rng.uniform(0.02, 0.98 - height)
        box = Box(x, y, x + width, y + height)
        if draft.reserve(box):
            yield replace(word, box=box)
            return
