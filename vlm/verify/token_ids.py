"""Checks that the token ids in generation_config.json belong to this vocabulary and this tokenizer. Knows no model.

A wrong id is a note, not a failure: families take their ids from the tokenizer or from config.json, since published
generation configs are often wrong. But ``generate`` of transformers uses the file, and with a wrong id it ends an
answer too early or never.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer

from vlm.checkpoint.files import Checkpoint
from vlm.models.checks import Finding, some

TOKENIZER = "tokenizer.json"
FILE = "generation_config.json"
_TOKEN_OF = {
    "bos_token_id": "bos_token",
    "eos_token_id": "eos_token",
    "pad_token_id": "pad_token",
    "forced_bos_token_id": "bos_token",
    "forced_eos_token_id": "eos_token",
}
"""Keys of the file, and the key of tokenizer_config.json that names the token which should stand at that id."""

_ADVICE = (
    f"Serving does not use these ids, but generate of transformers does: correct {FILE}, or fetch that of the same "
    "revision as the weights."
)
_KEYS = (*_TOKEN_OF, "decoder_start_token_id")


def check_token_ids(checkpoint: Checkpoint, vocabulary: int) -> Iterator[Finding]:
    """Check that every id of the file is within the ``vocabulary`` rows of the embedding matrix, and is its token's."""
    if not (checkpoint.folder / TOKENIZER).is_file():
        yield Finding("token ids", "skipped", f"there is no {TOKENIZER} beside the weights to compare with")
        return
    tokenizer, names = checkpoint.tokenizer(), checkpoint.json("tokenizer_config.json") or {}
    given = {key: ids for key in _KEYS if (ids := _ids(checkpoint.generation.get(key)))}
    faults = [
        fault
        for key, ids in given.items()
        for fault in (*_outside(key, ids, vocabulary), *_misplaced(key, ids, tokenizer, names))
    ]
    if faults:
        yield Finding("token ids", "note", f"{some(faults, '; ')}. {_ADVICE}")
        return
    fine = ", ".join(f"{key} {' '.join(map(str, ids))}" for key, ids in given.items()) or f"none in {FILE}"
    yield Finding("token ids", "ok", fine)


def _ids(value: object) -> tuple[object, ...]:
    """One id or a list of ids as a tuple; empty for a key that is not set."""
    return tuple(value) if isinstance(value, list) else () if value is None else (value,)


def _outside(key: str, ids: tuple[object, ...], vocabulary: int) -> Iterator[str]:
    for one in ids:
        if not isinstance(one, int) or isinstance(one, bool) or not 0 <= one < vocabulary:
            yield f"{key} is {one!r}, but ids are whole numbers from 0 to {vocabulary - 1}"


def _misplaced(key: str, ids: tuple[object, ...], tokenizer: Tokenizer, names: Mapping[str, Any]) -> Iterator[str]:
    """The fault if the tokenizer's own token for this purpose is not among the ids; a file may name more than one."""
    token = names.get(_TOKEN_OF.get(key, ""))
    token = token.get("content") if isinstance(token, Mapping) else token
    expected = tokenizer.token_to_id(token) if isinstance(token, str) else None
    if expected is not None and expected not in ids:
        found = ", ".join(f"{one} ({_named(one, tokenizer)})" for one in ids)
        yield f"{key} is {found}, but the tokenizer's {_TOKEN_OF[key]} is {token!r}, id {expected}"


def _named(one: object, tokenizer: Tokenizer) -> str:
    token = tokenizer.id_to_token(one) if isinstance(one, int) and one >= 0 else None
    return "not a token" if token is None else repr(token)
