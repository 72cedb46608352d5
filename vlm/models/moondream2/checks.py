"""What can be wrong with a tokenizer that Moondream 2 would read without complaint."""

from __future__ import annotations

from collections.abc import Iterator

from vlm.checkpoint.files import Checkpoint
from vlm.models.checks import Finding, round_trip, special_tokens, vocabulary
from vlm.models.moondream2.config import settings
from vlm.models.moondream2.vocabulary import END_OF_TEXT, MARKS, Ids, Vocabulary

OLDER_SPARE = 1024
"""Rows of the matrix that CodeGen's tokenizer has no token for, at most."""


def checks(checkpoint: Checkpoint) -> Iterator[Finding]:
    """The tokenizer of the weights' generation, its marks first, as many ids as the matrix has rows, and text back."""
    config = settings(checkpoint.config)
    ids = Ids.of(config.section("tokenizer"))
    words = Vocabulary.from_checkpoint(checkpoint, ids)  # refuses one of another generation
    marks = {mark: place for place, mark in enumerate(MARKS)} if ids.thinks else {END_OF_TEXT: ids.eos}
    yield special_tokens(words.whole, marks)
    yield vocabulary(words.size, config.section("text").integer("vocab_size"), spare=0 if ids.thinks else OLDER_SPARE)
    yield round_trip(words.encode, words.decode)
