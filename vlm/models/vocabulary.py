"""What the vocabularies of several families have in common. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel

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


def token_bytes(tokenizer: Tokenizer, token_id: int, before: Iterable[int]) -> bytes:
    """What one token adds to the text of an answer, special tokens included; see ``Processor.token_bytes``."""
    token: str | None = tokenizer.id_to_token(token_id)
    if token is None:
        return b""
    if isinstance(tokenizer.decoder, ByteLevel):
        return _bytes_of(token)
    alone: str = tokenizer.decode([token_id], skip_special_tokens=False)
    if all(tokenizer.id_to_token(other) is None for other in before):  # ids without a text are not in it
        return alone.encode()
    # Word pieces and SentencePiece put a space before a word that does not begin the text.
    twice: str = tokenizer.decode([token_id, token_id], skip_special_tokens=False)
    return twice[len(alone) :].encode()


def _bytes_of(token: str) -> bytes:
    """The bytes that a byte-level token stands for, which may be part of a character; special tokens stand as text."""
    if all(character in _BYTES for character in token):
        return bytes(_BYTES[character] for character in token)
    return token.encode()


def _byte_alphabet() -> dict[str, int]:
    """The byte for each character of a byte-level vocabulary (GPT-2's).

    A byte that is a printable character of Latin-1 stands for itself; the others are numbered from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    numbered = {chr(0x100 + number): byte for number, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | numbered


_BYTES = _byte_alphabet()
