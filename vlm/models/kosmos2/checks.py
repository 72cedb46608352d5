"""What can be wrong with a tokenizer that Kosmos-2 would read without complaint."""

from __future__ import annotations

from collections.abc import Iterator

from vlm.checkpoint.config_reader import ConfigReader
from vlm.checkpoint.files import Checkpoint
from vlm.models.checks import Finding, added_tokens, round_trip, special_tokens
from vlm.models.kosmos2.vocabulary import ADDED_TOKENS, Vocabulary


def checks(checkpoint: Checkpoint) -> Iterator[Finding]:
    """fairseq's first ids, tags and cells in their order up to the matrix's end, and text that comes back."""
    words = Vocabulary.from_checkpoint(checkpoint)
    yield special_tokens(words.whole, {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3})
    text = ConfigReader(checkpoint.config, "config.json").section("text_config")
    yield from added_tokens(words.whole, ADDED_TOKENS, text.integer("vocab_size", 65037))
    yield round_trip(words.encode, words.decode)
