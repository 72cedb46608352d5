"""BLIP's evaluation: the caption of a scene, and the same caption with a given beginning."""

from __future__ import annotations

import random
from collections.abc import Iterator

from training.blip.files import PREFIXES
from training.data.scenes import Scene
from training.data.sentences import caption, plain
from training.evaluation.metrics import Item, Row, exact_text
from vlm.types import Request

ROWS = (
    Row("caption, exact", 0.93),
    Row("conditional caption, exact", 0.93),
    Row("caption of shapes alone, exact"),
    Row("caption with a word, exact"),
)


def items(scene: Scene, image: bytes, rng: random.Random) -> Iterator[Item]:
    """Two requests for a caption. Expected texts are in lower case: the vocabulary has no capital letters."""
    expected = plain(caption(scene)).lower()
    prefix = rng.choice(PREFIXES)
    rows = (ROWS[0], ROWS[3 if scene.word else 2])
    yield Item(Request(image), {row.name: exact_text(expected) for row in rows})
    yield Item(Request(image, prefix), {ROWS[1].name: exact_text(f"{prefix} {expected}")})
