"""What can be wrong with a tokenizer that Florence-2 would read without complaint."""

from __future__ import annotations

from collections.abc import Iterator

from vlm.checkpoint.config_reader import ConfigReader
from vlm.checkpoint.files import Checkpoint
from vlm.models.checks import Finding, added_tokens, round_trip, special_tokens
from vlm.models.florence2.vocabulary import ADDED_TOKENS, Vocabulary

PADDING = 64
"""Native checkpoints round the matrix up to a multiple of this, with a row for ``<image>``."""


def checks(checkpoint: Checkpoint) -> Iterator[Finding]:
    """BART's first ids, marks in their order up to the matrix's end, and text that comes back."""
    words = Vocabulary.from_checkpoint(checkpoint)
    yield special_tokens(words.tokenizer, {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3})
    text = ConfigReader(checkpoint.config, "config.json").section("text_config")
    yield from added_tokens(words.tokenizer, ADDED_TOKENS, text.integer("vocab_size", 51289), spare=PADDING)
    yield round_trip(words.encode, words.decode)
