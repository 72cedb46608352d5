"""Kosmos-2's tokens: text, tags, and the cells of the grid in which boxes are given.

A client's text never becomes a tag or a special token. Source: transformers' ``Kosmos2Processor`` and the tokenizer of
microsoft/kosmos-2-patch14-224.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer

from vlm.checkpoint.files import Checkpoint
from vlm.errors import CheckpointError
from vlm.models.processor import replace_surrogates
from vlm.models.vocabulary import token_id

GRID = 32
"""Number of columns, and of rows, of the grid; a box is given by two of its cells."""

PROMPT_TAGS = ("<phrase>", "</phrase>", "<object>", "</object>", "</delimiter_of_multi_objects/>", "<grounding>")
"""Tags that a prompt may contain."""

CELLS = tuple(f"<patch_index_{number:04d}>" for number in range(GRID**2))
ADDED_TOKENS = (
    "</doc>",
    "<image>",
    "</image>",
    "</chunk>",
    "</line>",
    *PROMPT_TAGS,
    *CELLS,
)  # in the order of their ids

TAGS = re.compile(f"({'|'.join(map(re.escape, PROMPT_TAGS))}|<patch_index_(?:0[0-9]{{3}}|10[01][0-9]|102[0-3])>)")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Text to ids and back.

    Attributes:
        tokenizer: The checkpoint's tokenizer, special tokens included.
        text_tokenizer: The same without its special tokens: any text, ``</s>`` too, is encoded as ordinary characters.
        bos, unknown: Ids of ``<s>`` and ``<unk>``.
        tags: Ids of the tags and cells, by their text.
        cells: Number of the cell, by the id.
        special_tokens: Ids of everything that is not text: tags, cells, ``<s>``, ``</s>`` and so on.
    """

    tokenizer: Tokenizer
    text_tokenizer: Tokenizer
    bos: int
    unknown: int
    tags: Mapping[str, int]
    cells: Mapping[int, int]
    special_tokens: frozenset[int]

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Vocabulary:
        """Read ``tokenizer.json`` and add the tags that are missing there.

        Raises:
            CheckpointError: The file is missing or broken, or is not the tokenizer of Kosmos-2.
        """
        tokenizer = checkpoint.tokenizer()
        bos, unknown = (token_id(tokenizer, token, checkpoint, "Kosmos-2") for token in ("<s>", "<unk>"))
        tokenizer.add_tokens([AddedToken(token, lstrip=True, normalized=False) for token in ADDED_TOKENS])
        tags = {token: token_id(tokenizer, token, checkpoint, "Kosmos-2") for token in ADDED_TOKENS}
        cells = {tags[token]: number for number, token in enumerate(CELLS)}
        special_tokens = frozenset(tokenizer.get_added_tokens_decoder())
        text_tokenizer = _without_special_tokens(tokenizer, checkpoint)
        return cls(tokenizer, text_tokenizer, bos, unknown, tags, cells, special_tokens)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of ``text``, in which ``</s>`` and ``<image>`` are ordinary characters."""
        ids: list[int] = self.text_tokenizer.encode(replace_surrogates(text), add_special_tokens=False).ids
        return tuple(ids)

    def encode_tagged(self, text: str) -> tuple[int, ...]:
        """Ids of ``text``, in which the tags that a prompt may contain are tags; others are ordinary characters."""
        ids: list[int] = []
        for index, part in enumerate(TAGS.split(text)):  # text and tags alternate
            ids += (self.tags[part],) if index % 2 else self.encode(part)
        return tuple(ids)

    def decode(self, token_ids: Sequence[int], *, special: bool = False) -> str:
        """Ids to text, without tags, cells and special tokens; ``special`` keeps them all.

        What each id adds does not depend on the ids after it, so text can be streamed as it grows. Ids that the
        tokenizer does not have give no text.
        """
        kept = list(token_ids) if special else [token for token in token_ids if token not in self.special_tokens]
        text: str = self.tokenizer.decode(kept, skip_special_tokens=False)
        return text


def _without_special_tokens(tokenizer: Tokenizer, checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer without its special tokens, which a SentencePiece model also has as ordinary pieces."""
    content = json.loads(tokenizer.to_str())
    if content["model"]["type"] != "Unigram":
        raise CheckpointError(f"tokenizer.json in {checkpoint.folder} is not a Unigram model, as that of Kosmos-2 is.")
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    pieces = content["model"]["vocab"]
    # Removing a piece would renumber the others; one with a plain space in its name never matches any text.
    content["model"]["vocab"] = [[f"{name} " if name in special else name, score] for name, score in pieces]
    return Tokenizer.from_str(json.dumps(content | {"added_tokens": [], "post_processor": None}))
