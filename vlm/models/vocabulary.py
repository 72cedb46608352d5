"""What the vocabularies of several families have in common. Needs no torch."""

from __future__ import annotations

from tokenizers import Tokenizer

from vlm.checkpoint.files import Checkpoint
from vlm.errors import CheckpointError


def token_id(tokenizer: Tokenizer, token: str, checkpoint: Checkpoint, model: str) -> int:
    """The id of a token that every tokenizer of ``model`` has. Raises CheckpointError where it is missing."""
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise CheckpointError(
            f"tokenizer.json in {checkpoint.folder} has no {token}: it is not the tokenizer of {model}."
        )
    return found
