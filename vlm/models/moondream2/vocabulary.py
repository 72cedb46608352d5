"""Moondream 2's tokens: words, marks, and the ids that each task's prompt is made of.

Owns the tokenizer, and keeps a client's words apart from marks. Does not know what a prompt or an answer looks like.
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
from vlm.models.moondream2.config import REVISION, REVISIONS
from vlm.types import CaptionLength

TOKENIZER = HubFile("moondream/starmie-v1", "35192e10a54e36eabe0a7cc57a2c1aab371cafc5", "tokenizer.json")
"""Where the published tokenizer is: not beside the weights, whose repository still has that of older revisions."""

END_OF_TEXT = "<|endoftext|>"
MARKS = (END_OF_TEXT, *(f"<|md_reserved_{number}|>" for number in range(20)))
"""The marks of the published tokenizer, in the order of their ids."""

_LENGTHS: tuple[CaptionLength, ...] = ("short", "normal", "long")


@dataclass(frozen=True, slots=True)
class Ids:
    """What config.json calls ``tokenizer``.

    Attributes:
        bos, eos: The same mark, at the start and the end of everything.
        answer: Ends a prompt, and what was thought.
        thinking: Ends a prompt that is to be thought about.
        coordinate, size: Stand for a place in what is read or thought.
        start_points, end_ground: Begin a part of what is thought.
        captions: Prompts by length; empty where the revision has none of that length.
        query, detect, point: What stands before and after the client's words.
        thinks: Whether the revision can think, be asked about places, and answer without an image.
        query_says: What the prompt of a question reads.
        before_question, before_label: A space, or nothing: what the client's words are put behind.
    """

    bos: int
    eos: int
    answer: int
    thinking: int
    coordinate: int
    size: int
    start_points: int
    end_ground: int
    captions: Mapping[CaptionLength, tuple[int, ...]]
    query: tuple[tuple[int, ...], tuple[int, ...]]
    detect: tuple[tuple[int, ...], tuple[int, ...]]
    point: tuple[tuple[int, ...], tuple[int, ...]]
    thinks: bool
    query_says: str
    before_question: str
    before_label: str

    @classmethod
    def of(cls, tokenizer: ConfigReader) -> Ids:
        """From config.json's ``tokenizer``."""
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
            thinking=tokenizer.integer("thinking_id"),
            coordinate=tokenizer.integer("coord_id"),
            size=tokenizer.integer("size_id"),
            start_points=tokenizer.integer("start_ground_points_id"),
            end_ground=tokenizer.integer("end_ground_id"),
            captions={length: captions.integers(length) for length in _LENGTHS},
            thinks=tokenizer.flag("thinks", True),
            query_says=tokenizer.text("query_says"),
            before_question=tokenizer.text("before_question"),
            before_label=tokenizer.text("before_label"),
            **around,
        )


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Text to ids and back.

    Attributes:
        words: The tokenizer without its marks: whatever a text holds, it reads words.
        whole: The tokenizer with them.
        marks: Ids of everything that is no word.
        size: Ids from here on have no text.
    """

    words: Tokenizer
    whole: Tokenizer
    marks: frozenset[int]
    size: int

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, ids: Ids) -> Vocabulary:
        """Read ``tokenizer.json`` beside the weights; for a checkpoint of the hub, else the published one of there.

        Raises:
            CheckpointError: There is no tokenizer that fits the weights; the message says where it is.
        """
        whole = checkpoint.tokenizer()
        if not fits(whole, ids) and ids.thinks and checkpoint.revision is not None:
            whole = checkpoint.tokenizer(TOKENIZER)
        if not fits(whole, ids):
            raise _of_other_weights(checkpoint, ids)
        return cls(_words_alone(whole), whole, frozenset(_marks(whole)), whole.get_vocab_size())

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of ``text``, all of it words: ``<|md_reserved_2|>`` is mere letters."""
        text = text.encode("utf-8", "replace").decode("utf-8")  # JSON can hold half of a surrogate pair
        ids: list[int] = self.words.encode(text, add_special_tokens=False).ids
        return tuple(ids)

    def decode(self, token_ids: Sequence[int], *, special: bool = False) -> str:
        """Ids to text, without marks unless ``special``; ids outside the tokenizer, as places are, have no text."""
        left_out = frozenset() if special else self.marks
        text: str = self.whole.decode(
            [token for token in token_ids if token < self.size and token not in left_out], skip_special_tokens=False
        )
        return text


def fits(tokenizer: Tokenizer, ids: Ids) -> bool:
    """Whether a tokenizer is of the generation that the ids are of.

    It ends texts with the id that the config says, all other ids of the config are marks too, and the prompt of a
    question reads as it should.
    """
    marks = _marks(tokenizer)
    used = (
        {ids.answer, ids.thinking, ids.coordinate, ids.size, ids.start_points, ids.end_ground} if ids.thinks else set()
    )
    if marks.get(ids.bos) != END_OF_TEXT or not used <= marks.keys():
        return False
    said: str = tokenizer.decode([one for one in ids.query[0] if one not in marks])
    return said.strip() == ids.query_says


def _of_other_weights(checkpoint: Checkpoint, ids: Ids) -> CheckpointError:
    if not ids.thinks:
        return CheckpointError(
            f"tokenizer.json in {checkpoint.folder} is not the one that weights of the revision in config.json were "
            "trained with: use that of their own repository."
        )
    return CheckpointError(
        f"tokenizer.json in {checkpoint.folder} is not the one that weights of {REVISION} were trained with: their "
        "repository still has that of older revisions. Put in its place the tokenizer.json of "
        f"https://huggingface.co/{TOKENIZER.repository} at revision {TOKENIZER.revision}. If the weights themselves "
        f'are older, name theirs in config.json, as in "config": {{"revision": "2025-04-14"}}; known are '
        f"{', '.join(REVISIONS)}."
    )


def _marks(tokenizer: Tokenizer) -> dict[int, str]:
    """Added tokens by id. Some tokenizers have runs of spaces among them, which are words."""
    added = tokenizer.get_added_tokens_decoder()
    return {token: one.content for token, one in added.items() if one.content.strip()}


def _words_alone(whole: Tokenizer) -> Tokenizer:
    """The tokenizer without its marks, which the model's own vocabulary may hold as well."""
    content = json.loads(whole.to_str())
    marks = set(_marks(whole).values())
    # A piece with a plain space is one that no text has, for byte-level pieces spell a space with another letter.
    pieces = content["model"]["vocab"]
    content["model"]["vocab"] = {f"{piece} " if piece in marks else piece: token for piece, token in pieces.items()}
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in marks]
    return Tokenizer.from_str(json.dumps(content))
