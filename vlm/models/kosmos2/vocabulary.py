"""Kosmos-2's tokens: words, tags and cells of the grid, and which id is which.

Owns the tokenizer, and keeps a client's words apart from tags. Does not know what a prompt or an answer looks like.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer

from vlm.checkpoint.files import Checkpoint
from vlm.errors import CheckpointError

GRID = 32
"""Boxes are given by two cells of a grid of so many columns and rows."""

WRITTEN = ("<phrase>", "</phrase>", "<object>", "</object>", "</delimiter_of_multi_objects/>", "<grounding>")
"""Tags that a prompt may hold."""

CELLS = tuple(f"<patch_index_{number:04d}>" for number in range(GRID**2))
ADDED_TOKENS = ("</doc>", "<image>", "</image>", "</chunk>", "</line>", *WRITTEN, *CELLS)  # in the order of their ids

TAGS = re.compile(f"({'|'.join(map(re.escape, WRITTEN))}|<patch_index_(?:0[0-9]{{3}}|10[01][0-9]|102[0-3])>)")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Text to ids and back.

    Attributes:
        words: The tokenizer without its marks: whatever a text holds, it reads words.
        whole: The tokenizer with them.
        bos, unknown: Ids of ``<s>`` and ``<unk>``.
        tags: Ids of the tags and cells, by their text.
        cells: Cell number of each id that is one.
        marks: Ids of everything that is no word: tags, cells, ``<s>``, ``</s>`` and their like.
    """

    words: Tokenizer
    whole: Tokenizer
    bos: int
    unknown: int
    tags: Mapping[str, int]
    cells: Mapping[int, int]
    marks: frozenset[int]

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Vocabulary:
        """Read ``tokenizer.json``, and add the tags that it lacks.

        Raises:
            CheckpointError: The file is missing or broken, or is no Kosmos-2 tokenizer.
        """
        whole = checkpoint.tokenizer()
        bos, unknown = (_id(whole, token, checkpoint) for token in ("<s>", "<unk>"))
        whole.add_tokens([AddedToken(token, lstrip=True, normalized=False) for token in ADDED_TOKENS])
        tags = {token: _id(whole, token, checkpoint) for token in ADDED_TOKENS}
        cells = {tags[token]: number for number, token in enumerate(CELLS)}
        marks = frozenset(whole.get_added_tokens_decoder())
        return cls(_words_alone(whole, checkpoint), whole, bos, unknown, tags, cells, marks)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of ``text``, all of it words: ``</s>`` and ``<image>`` are mere letters."""
        text = text.encode("utf-8", "replace").decode("utf-8")  # JSON can hold half of a surrogate pair
        ids: list[int] = self.words.encode(text, add_special_tokens=False).ids
        return tuple(ids)

    def encode_tagged(self, text: str) -> tuple[int, ...]:
        """Ids of ``text``, where the tags that a prompt may hold are tags; other tags are mere letters."""
        ids: list[int] = []
        for place, piece in enumerate(TAGS.split(text)):
            ids += (self.tags[piece],) if place % 2 else self.encode(piece)
        return tuple(ids)

    def decode(self, token_ids: Sequence[int], *, special: bool = False) -> str:
        """Ids to text, without tags, cells and special tokens; ``special`` keeps them all.

        What each id adds depends on nothing after it, so that a text can be given out as it grows. Ids outside the
        tokenizer have no text.
        """
        kept = list(token_ids) if special else [token for token in token_ids if token not in self.marks]
        text: str = self.whole.decode(kept, skip_special_tokens=False)
        return text


def _id(tokenizer: Tokenizer, token: str, checkpoint: Checkpoint) -> int:
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise CheckpointError(f"tokenizer.json in {checkpoint.folder} has no {token}: it is no Kosmos-2 tokenizer.")
    return found


def _words_alone(whole: Tokenizer, checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer without its marks, which a SentencePiece model also holds as ordinary pieces."""
    content = json.loads(whole.to_str())
    if content["model"]["type"] != "Unigram":
        raise CheckpointError(f"tokenizer.json in {checkpoint.folder} is no Unigram model, as Kosmos-2's is.")
    marks = {token.content for token in whole.get_added_tokens_decoder().values()}
    pieces = content["model"]["vocab"]
    # A name with a space is one that no word has; to remove the piece would renumber all.
    content["model"]["vocab"] = [[f"{name} " if name in marks else name, score] for name, score in pieces]
    return Tokenizer.from_str(json.dumps(content | {"added_tokens": [], "post_processor": None}))
