"""Florence-2's tokens: text, location bins and special tokens.

The tokenizer of the original upload lacks all tokens that Florence-2 added to BART's; they are added here. Ids are read
from the tokenizer and never from a config, because fine-tuned uploads often configure wrong ones. Source: transformers'
``Florence2Processor`` and the processor in the repository of microsoft/Florence-2-base.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from vlm.checkpoint.files import Checkpoint
from vlm.models.processor import replace_surrogates
from vlm.models.vocabulary import token_id

BINS = 1000
"""Number of bins for a coordinate, along each side of the image."""

_LOCATION = re.compile(r"(<loc_(?:0|[1-9][0-9]{0,2})>)")
_LOCATIONS = tuple(f"<loc_{number}>" for number in range(BINS))
ADDED_TOKENS = (  # in the order of their ids; "desciption" is how the published vocabulary spells it
    "<od>", "</od>", "<ocr>", "</ocr>", *_LOCATIONS,
    "<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>",
    "<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>",
    "<proposal>", "</proposal>", "<poly>", "</poly>", "<and>",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Text to ids and back.

    Attributes:
        tokenizer: Encodes the text of special tokens as ordinary characters.
        bos, eos, pad, image: Ids of ``<s>``, ``</s>``, ``<pad>`` and ``<image>``.
        bins: Number of the bin, by the id of the location token.
        special_tokens: Ids of all other special tokens except ``bos``, ``eos`` and ``pad``.
    """

    tokenizer: Tokenizer
    bos: int
    eos: int
    pad: int
    image: int
    bins: Mapping[int, int]
    special_tokens: frozenset[int]

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Vocabulary:
        """Read ``tokenizer.json``, and add the tokens that the original upload adds by code in its repository.

        Raises:
            CheckpointError: The file is missing or broken, or is not the tokenizer of Florence-2.
        """
        tokenizer = checkpoint.tokenizer()
        if tokenizer.token_to_id(_LOCATIONS[0]) is None:
            tokenizer.add_special_tokens(list(ADDED_TOKENS))
        if tokenizer.token_to_id("<image>") is None:
            tokenizer.add_special_tokens(["<image>"])
        # Some files have these tokens as added but not special; only special ones are kept out of a client's text.
        tokenizer.add_special_tokens([added.content for added in tokenizer.get_added_tokens_decoder().values()])
        tokenizer.encode_special_tokens = True
        bins = {token_id(tokenizer, token, checkpoint, "Florence-2"): number for number, token in enumerate(_LOCATIONS)}
        bos, eos, pad, image = (
            token_id(tokenizer, token, checkpoint, "Florence-2") for token in ("<s>", "</s>", "<pad>", "<image>")
        )
        special_tokens = frozenset(tokenizer.get_added_tokens_decoder()) - {bos, eos, pad} - bins.keys()
        return cls(tokenizer, bos, eos, pad, image, bins, special_tokens)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of ``text``, in which ``<loc_0>`` to ``<loc_999>`` are locations, and all else ordinary characters.

        transformers turns any special token in a client's text into its id; here ``</s>`` cannot end the prompt.
        """
        ids: list[int] = []
        for index, part in enumerate(_LOCATION.split(replace_surrogates(text))):  # text and locations alternate
            ids += self._location(part) if index % 2 else self._text(part)
        return tuple(ids)

    def decode(self, token_ids: Sequence[int], *, special: bool = False) -> str:
        """Ids to text, as transformers' ``decode``; ids that the tokenizer does not have give no text."""
        text: str = self.tokenizer.decode(list(token_ids), skip_special_tokens=not special)
        return text

    def _text(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _location(self, token: str) -> list[int]:
        found = self.tokenizer.token_to_id(token)
        return [] if found is None else [found]
