"""BLIP's examination: the caption, and the same begun with words that it must go on from."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from miniatures.blip.files import PREFIXES
from miniatures.scenes import Scene
from miniatures.scores import Answer, Item, Mark, Row, exact
from miniatures.sentences import caption, plain
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
    yield Item(ROWS[0].name, Request(image), _exactly(wanted))
    yield Item(ROWS[1].name, Request(image, prefix), _exactly(f"{prefix} {wanted}"))
    yield Item(ROWS[3 if scene.word else 2].name, Request(image), _exactly(wanted))


def _exactly(wanted: str) -> Callable[[Answer], Mark]:
    return lambda answer: exact(answer.text, wanted)
