"""Moondream 2's tokens: text, special tokens, and the ids that the prompt of each task is made of.

A client's text never becomes a special token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from vlm.checkpoint.config_reader import ConfigReader
from vlm.checkpoint.files import Checkpoint
from vlm.checkpoint.hub import HubFile
from vlm.errors import CheckpointError
from vlm.models.moondream2.revisions import REVISION, REVISIONS
from vlm.models.processor import replace_surrogates
from vlm.types import CaptionLength

TOKENIZER = HubFile("moondream/starmie-v1", "35192e10a54e36eabe0a7cc57a2c1aab371cafc5", "tokenizer.json")
"""The published tokenizer; the file in the repository of the weights is still that of older revisions."""

END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, *(f"<|md_reserved_{number}|>" for number in range(20)))
"""The special tokens of the published tokenizer, in the order of their ids."""

_LENGTHS: tuple[CaptionLength, ...] = ("short", "normal", "long")


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids in the ``tokenizer`` section of config.json.

    Attributes:
        bos, eos: The end of text, which begins and ends every sequence.
        answer: Ends a prompt, and reasoning.
        reasoning: Ends a prompt that is answered after reasoning.
        coordinate, size: Stand for a coordinate or a size in a prompt and in reasoning.
        start_points, end_ground: Begin a part of reasoning.
        captions: Prompts by length; empty where the revision does not have that length.
        query, detect, point: The prompt before and after the client's text.
        can_reason: Whether the revision can reason, answer questions with references, and answer without an image.
        query_text: What the prompt of a question says, by which a tokenizer of another generation is recognised.
        before_question, before_label: What is put before the client's text: a space or "".
    """

    bos: int
    eos: int
    answer: int
    reasoning: int
    coordinate: int
    size: int
    start_points: int
    end_ground: int
    captions: Mapping[CaptionLength, tuple[int, ...]]
    query: tuple[tuple[int, ...], tuple[int, ...]]
    detect: tuple[tuple[int, ...], tuple[int, ...]]
    point: tuple[tuple[int, ...], tuple[int, ...]]
    can_reason: bool
    query_text: str
    before_question: str
    before_label: str

    @classmethod
    def of(cls, tokenizer: ConfigReader) -> Ids:
        """From config.json's ``tokenizer``. Raises CheckpointError."""
        templates = tokenizer.section("templates")
        captions = templates.section("caption")
        around = {
            name: (templates.section(name).integers("prefix"), templates.section(name).integers("suffix"))
            for name in ("query", "detect", "point")
        }
        return cls(
            bos=tokenizer.integer("bos_id"),
            eos=tokenizer.integer("eos_id"),
            answer=tokenizer.integer("answer_id"),
            reasoning=tokenizer.integer("thinking_id"),
            coordinate=tokenizer.integer("coord_id"),
            size=tokenizer.integer("size_id"),
            start_points=tokenizer.integer("start_ground_points_id"),
            end_ground=tokenizer.integer("end_ground_id"),
            captions={length: captions.integers(length) for length in _LENGTHS},
            can_reason=tokenizer.flag("can_reason", True),
            query_text=tokenizer.text("query_text"),
            before_question=tokenizer.text("before_question"),
            before_label=tokenizer.text("before_label"),
            **around,
        )


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Text to ids and back.

    Attributes:
        tokenizer: The checkpoint's tokenizer, special tokens included.
        text_tokenizer: The same without its special tokens: any text is encoded as ordinary characters.
        special_tokens: Ids of everything that is not text.
        size: Number of the tokenizer's ids; ids from here on have no text.
    """

    tokenizer: Tokenizer
    text_tokenizer: Tokenizer
    special_tokens: frozenset[int]
    size: int

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, ids: Ids) -> Vocabulary:
        """Read ``tokenizer.json`` beside the weights.

        If that does not fit a checkpoint from the hub, the published tokenizer, :data:`TOKENIZER`, is fetched instead.

        Raises:
            CheckpointError: No tokenizer fits the weights; the message says where to get the right one.
        """
        tokenizer = checkpoint.tokenizer()
        if not fits(tokenizer, ids) and ids.can_reason and checkpoint.revision is not None:
            tokenizer = checkpoint.tokenizer(TOKENIZER)
        if not fits(tokenizer, ids):
            raise _wrong_tokenizer(checkpoint, ids)
        special_tokens = frozenset(_special_tokens(tokenizer))
        return cls(tokenizer, _without_special_tokens(tokenizer), special_tokens, tokenizer.get_vocab_size())

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of ``text``, in which ``<|md_reserved_2|>`` is ordinary characters."""
        ids: list[int] = self.text_tokenizer.encode(replace_surrogates(text), add_special_tokens=False).ids
        return tuple(ids)

    def decode(self, token_ids: Sequence[int], *, special: bool = False) -> str:
        """Ids to text; special tokens only if ``special``. Other ids, such as locations, have no text."""
        left_out = frozenset() if special else self.special_tokens
        text: str = self.tokenizer.decode(
            [token for token in token_ids if token < self.size and token not in left_out], skip_special_tokens=False
        )
        return text


def fits(tokenizer: Tokenizer, ids: Ids) -> bool:
    """Whether a tokenizer is of the same generation as the ids.

    It is if the end of text has the config's id, all other ids of the config are special tokens too, and the prompt of
    a question says what it should.
    """
    special = _special_tokens(tokenizer)
    used = {ids.answer, ids.reasoning, ids.coordinate, ids.size, ids.start_points, ids.end_ground}
    if special.get(ids.bos) != END_OF_TEXT or (ids.can_reason and not used <= special.keys()):
        return False
    query: str = tokenizer.decode([one for one in ids.query[0] if one not in special])
    return query.strip() == ids.query_text


def _wrong_tokenizer(checkpoint: Checkpoint, ids: Ids) -> CheckpointError:
    if not ids.can_reason:
        return CheckpointError(
            f"tokenizer.json in {checkpoint.folder} is not the one that weights of the revision in config.json were "
            "trained with: use that of their own repository."
        )
    return CheckpointError(
        f"tokenizer.json in {checkpoint.folder} is not the one that weights of {REVISION} were trained with: their "
        "repository still has that of older revisions. Replace it by the tokenizer.json of "
        f"https://huggingface.co/{TOKENIZER.repository} at revision {TOKENIZER.revision}. If the weights themselves "
        f'are older, name their revision in config.json, as in "config": {{"revision": "2025-04-14"}}; known are '
        f"{', '.join(REVISIONS)}."
    )


def _special_tokens(tokenizer: Tokenizer) -> dict[int, str]:
    """Added tokens by id. Some tokenizers have runs of spaces among them, which are text."""
    added = tokenizer.get_added_tokens_decoder()
    return {token: one.content for token, one in added.items() if one.content.strip()}


def _without_special_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer without its special tokens, which may also be ordinary pieces of its vocabulary."""
    content = json.loads(tokenizer.to_str())
    special = set(_special_tokens(tokenizer).values())
    # A piece with a plain space never matches any text: byte-level pieces have another character for a space.
    pieces = content["model"]["vocab"]
    content["model"]["vocab"] = {f"{piece} " if piece in special else piece: token for piece, token in pieces.items()}
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in special]
    return Tokenizer.from_str(json.dumps(content))
