"""Checks of a tokenizer for mistakes that loading would not notice, such as one that belongs to other weights."""

from __future__ import annotations

from collections.abc import Iterator

from vlm.checkpoint.files import Checkpoint
from vlm.models.checks import Finding, round_trip, special_tokens, vocabulary
from vlm.models.moondream2.revisions import read_config
from vlm.models.moondream2.vocabulary import END_OF_TEXT, SPECIAL_TOKENS, Ids, Vocabulary

OLDER_SPARE = 1024
"""Maximum number of rows of the embedding matrix without a token in CodeGen's tokenizer."""


def checks(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Check the ids of the special tokens, the size of the vocabulary, and that a text survives a round trip."""
    config = read_config(checkpoint.config)
    ids = Ids.of(config.section("tokenizer"))
    known = Vocabulary.from_checkpoint(checkpoint, ids)  # raises for the tokenizer of another generation
    expected = (
        {token: index for index, token in enumerate(SPECIAL_TOKENS)} if ids.can_reason else {END_OF_TEXT: ids.eos}
    )
    spare = 0 if ids.can_reason else OLDER_SPARE
    yield special_tokens(known.tokenizer, expected)
    yield vocabulary(known.size, config.section("text").integer("vocab_size"), spare)
    yield round_trip(known.encode, known.decode)
