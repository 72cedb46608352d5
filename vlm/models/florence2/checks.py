"""Checks of a tokenizer for mistakes that loading would not notice, such as one that belongs to other weights."""

from __future__ import annotations

from collections.abc import Iterator

from vlm.checkpoint.config_reader import ConfigReader
from vlm.checkpoint.files import Checkpoint
from vlm.models.checks import Finding, added_tokens, round_trip, special_tokens
from vlm.models.florence2.vocabulary import ADDED_TOKENS, Vocabulary

PADDING = 64
"""Native checkpoints have a row for ``<image>`` and round the number of rows up to a multiple of this."""


def checks(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Check the ids of BART's special tokens, those of the added tokens, and that a text survives a round trip."""
    vocabulary = Vocabulary.from_checkpoint(checkpoint)
    yield special_tokens(vocabulary.tokenizer, {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3})
    text = ConfigReader(checkpoint.config, "config.json").section("text_config")
    yield from added_tokens(vocabulary.tokenizer, ADDED_TOKENS, text.integer("vocab_size", 51289), spare=PADDING)
    yield round_trip(vocabulary.encode, vocabulary.decode)
