"""BLIP's examination: the caption, and the same begun with words that it must go on from."""

from __future__ import annotations

import random
from collections.abc import Iterator

from training.blip.files import PREFIXES
from training.data.scenes import Scene
from training.data.sentences import caption, plain
from training.evaluation.metrics import Item, Row, exactly
from vlm.types import Request

ROWS = (
    Row("caption, exact", 0.93),
    Row("conditional caption, exact", 0.93),
    Row("caption of shapes alone, exact"),
    Row("caption with a word, exact"),
)


def items(scene: Scene, image: bytes, rng: random.Random) -> Iterator[Item]:
    """Two captions; the vocabulary has no capital letters."""
    wanted = plain(caption(scene)).lower()
    prefix = rng.choice(PREFIXES)
    rows = (ROWS[0], ROWS[3 if scene.word else 2])
    yield Item(Request(image), {row.name: exactly(wanted) for row in rows})
    yield Item(Request(image, prefix), {ROWS[1].name: exactly(f"{prefix} {wanted}")})
