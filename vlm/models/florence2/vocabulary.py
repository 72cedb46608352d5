"""Florence-2's tokens: words, location bins and marks, and which id is which.

Owns the tokenizer and the repair of the original upload's, which lacks everything that Florence-2 added to BART. Ids
come from here, never from a config: fine-tuned uploads often carry wrong ones there. Does not know what ids mean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from vlm.checkpoint.files import Checkpoint
from vlm.errors import CheckpointError

BINS = 1000
"""Coordinates are one of this many bins along each side."""

_LOCATION = re.compile(r"(<loc_(?:0|[1-9][0-9]{0,2})>)")
_LOCATIONS = tuple(f"<loc_{number}>" for number in range(BINS))
ADDED_TOKENS = (  # in the order of their ids, "desciption" included: it is spelled so in the weights' vocabulary
    "<od>", "</od>", "<ocr>", "</ocr>", *_LOCATIONS,
    "<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>",
    "<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>",
    "<proposal>", "</proposal>", "<poly>", "</poly>", "<and>",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Text to ids and back.

    Attributes:
        tokenizer: Never reads a special token out of text.
        bos, eos, pad, image: Ids of ``<s>``, ``</s>``, ``<pad>`` and ``<image>``.
        bins: Bin number of each location id.
        marks: Ids of all other tokens that are no words, ``bos``, ``eos`` and ``pad`` not among them.
    """

    tokenizer: Tokenizer
    bos: int
    eos: int
    pad: int
    image: int
    bins: Mapping[int, int]
    marks: frozenset[int]

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Vocabulary:
        """Read ``tokenizer.json`` and add what the original layout leaves to code that came with the weights.

        Raises:
            CheckpointError: The file is missing or broken, or is no Florence-2 tokenizer.
        """
        tokenizer = checkpoint.tokenizer()
        if tokenizer.token_to_id(_LOCATIONS[0]) is None:
            tokenizer.add_special_tokens(list(ADDED_TOKENS))
        if tokenizer.token_to_id("<image>") is None:
            tokenizer.add_special_tokens(["<image>"])
        # Some files hold marks as added but not special; only special ones are kept out of a client's text.
        tokenizer.add_special_tokens([added.content for added in tokenizer.get_added_tokens_decoder().values()])
        tokenizer.encode_special_tokens = True
        bins = {_id(tokenizer, token, checkpoint): number for number, token in enumerate(_LOCATIONS)}
        bos, eos, pad, image = (_id(tokenizer, token, checkpoint) for token in ("<s>", "</s>", "<pad>", "<image>"))
        marks = frozenset(tokenizer.get_added_tokens_decoder()) - {bos, eos, pad} - bins.keys()
        return cls(tokenizer, bos, eos, pad, image, bins, marks)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of ``text``, where ``<loc_0>`` to ``<loc_999>`` are locations and all other marks are mere letters.

        The reference reads any special token out of a client's text; here ``</s>`` in a caption cannot end the prompt.
        """
        text = text.encode("utf-8", "replace").decode("utf-8")  # JSON can hold half of a surrogate pair
        ids: list[int] = []
        for place, piece in enumerate(_LOCATION.split(text)):
            ids += self._words(piece) if place % 2 == 0 else self._location(piece)
        return tuple(ids)

    def decode(self, token_ids: Sequence[int], *, special: bool = False) -> str:
        """Ids to text as transformers' ``decode`` does it; ids outside the tokenizer have no text."""
        text: str = self.tokenizer.decode(list(token_ids), skip_special_tokens=not special)
        return text

    def _words(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _location(self, token: str) -> list[int]:
        found = self.tokenizer.token_to_id(token)
        return [] if found is None else [found]


def _id(tokenizer: Tokenizer, token: str, checkpoint: Checkpoint) -> int:
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise CheckpointError(f"tokenizer.json in {checkpoint.folder} has no {token}: it is no Florence-2 tokenizer.")
    return found
