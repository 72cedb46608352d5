"""Checks of a tokenizer for mistakes that loading would not notice, such as one that belongs to other weights."""

from __future__ import annotations

from collections.abc import Iterator

from vlm.checkpoint.config_reader import ConfigReader
from vlm.checkpoint.files import Checkpoint
from vlm.models.checks import Finding, round_trip, special_tokens, vocabulary

ADDED = 2
"""[DEC] and [ENC] have rows in the embedding matrix but are missing in published tokenizer files."""


def checks(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Check the ids of special tokens, the size of the vocabulary, and that a text survives a round trip."""
    text = ConfigReader(checkpoint.config, "config.json").section("text_config")
    tokenizer = checkpoint.tokenizer()
    yield special_tokens(
        tokenizer, {"[PAD]": text.integer("pad_token_id", 0), "[SEP]": text.integer("sep_token_id", 102)}
    )
    yield vocabulary(tokenizer.get_vocab_size(), text.integer("vocab_size", 30524), spare=ADDED)
    yield round_trip(lambda text: tokenizer.encode(text).ids, tokenizer.decode)
