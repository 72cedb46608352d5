"""What can be wrong with a tokenizer that BLIP would read without complaint."""

from __future__ import annotations

from collections.abc import Iterator

from vlm.checkpoint.config_reader import ConfigReader
from vlm.checkpoint.files import Checkpoint
from vlm.models.checks import Finding, round_trip, special_tokens, vocabulary

ADDED = 2
"""[DEC] and [ENC]: rows of the matrix that published tokenizer files do not name."""


def checks(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Special tokens at the config's ids, a vocabulary of the matrix's size, and text that comes back."""
    text = ConfigReader(checkpoint.config, "config.json").section("text_config")
    tokenizer = checkpoint.tokenizer()
    yield special_tokens(
        tokenizer, {"[PAD]": text.integer("pad_token_id", 0), "[SEP]": text.integer("sep_token_id", 102)}
    )
    yield vocabulary(tokenizer.get_vocab_size(), text.integer("vocab_size", 30524), spare=ADDED)
    yield round_trip(lambda words: tokenizer.encode(words).ids, tokenizer.decode)
