"""Text and tags have the ids of the reference, and text never becomes a tag."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoProcessor

from vlm.checkpoint.files import Checkpoint
from vlm.engine.detokenizer import Detokenizer
from vlm.errors import CheckpointError
from vlm.models.kosmos2.vocabulary import ADDED_TOKENS, CELLS, PROMPT_TAGS, Vocabulary

FOLDER = Path(__file__).parents[4] / "miniatures" / "kosmos-2"
OURS = Vocabulary.from_checkpoint(Checkpoint.open(FOLDER))
THEIRS: Any = AutoProcessor.from_pretrained(FOLDER)

WORDS = st.text(st.characters(codec="utf-8"), max_size=30)
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
HIDDEN = tuple(token for token in ADDED_TOKENS if token not in (*PROMPT_TAGS, *CELLS))
WORD = st.integers(4, THEIRS.tokenizer.mask_token_id - 1)
TOKEN = st.integers(0, len(THEIRS.tokenizer) - 1)
PIECE = st.one_of(WORDS, st.sampled_from(PROMPT_TAGS), st.sampled_from(CELLS), st.sampled_from([" ", " a red", "\n"]))


def reference_ids(text: str) -> tuple[int, ...]:
    return tuple(THEIRS.tokenizer(text, add_special_tokens=False)["input_ids"])


def plain(text: str) -> bool:
    return not any(token in text for token in (*SPECIAL, *ADDED_TOKENS))


@given(text=WORDS.filter(plain))
def test_text_has_the_references_ids(text: str) -> None:
    assert OURS.encode(text) == OURS.encode_tagged(text) == reference_ids(text)


@given(pieces=st.lists(PIECE, max_size=8))
def test_text_with_tags_has_the_references_ids(pieces: list[str]) -> None:
    text = "".join(pieces)
    if not any(token in text for token in (*SPECIAL, *HIDDEN)):
        assert OURS.encode_tagged(text) == reference_ids(text)


@pytest.mark.parametrize("token", [*SPECIAL, *HIDDEN])
def test_tags_that_no_prompt_may_contain_are_ordinary_characters(token: str) -> None:
    id_ = THEIRS.tokenizer.convert_tokens_to_ids(token)
    assert id_ in reference_ids(f"a {token} red"), "the reference would let a client write it"
    if token != "<unk>":  # letters that the miniature lacks are unknown too
        assert id_ not in OURS.encode_tagged(f"a {token} red")
        assert id_ not in OURS.encode(f"a {token} red")


@pytest.mark.parametrize("token", [*PROMPT_TAGS, CELLS[0], CELLS[-1]])
def test_tags_in_text_are_ordinary_characters(token: str) -> None:
    assert OURS.tags[token] in OURS.encode_tagged(token)
    assert not set(OURS.encode(f"a {token} red")) & set(OURS.tags.values())


@pytest.mark.parametrize(
    "text", ["<patch_index_1024>", "<patch_index_44>", "<patch_index_00044>", "<Phrase>", "< phrase>"]
)
def test_what_looks_like_a_tag_is_none(text: str) -> None:
    assert not set(OURS.encode_tagged(text)) & OURS.special_tokens - {OURS.unknown}


def test_a_lone_surrogate_does_not_crash() -> None:
    assert OURS.encode("a \ud800 b") == reference_ids("a ? b")


def test_cells_are_numbered_by_their_names() -> None:
    assert OURS.cells == {THEIRS.tokenizer.convert_tokens_to_ids(f"<patch_index_{n:04d}>"): n for n in range(1024)}


@given(ids=st.lists(TOKEN, max_size=30))
def test_with_all_tokens_the_text_is_the_references(ids: list[int]) -> None:
    assert OURS.decode(ids, special=True) == THEIRS.tokenizer.decode(ids, skip_special_tokens=False)


@given(ids=st.lists(st.one_of(TOKEN, WORD), max_size=30), echo=st.integers(0, 5))
def test_a_text_that_grows_ends_as_the_whole_one(ids: list[int], echo: int) -> None:
    growing = Detokenizer(OURS.decode, ids[:echo], ())
    pieces = [growing.push(token) for token in ids[echo:]]
    pieces.append(growing.finish())
    assert growing.text == "".join(pieces) == OURS.decode(ids).strip()


def test_ids_outside_the_tokenizer_have_no_text() -> None:
    assert OURS.decode([6, 5000, 7]) == OURS.decode([6, 7])


def without(folder: Path, dropped: tuple[str, ...]) -> Checkpoint:
    """The miniature, whose tokenizer lacks some added tokens."""
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors"))
    content = json.loads((FOLDER / "tokenizer.json").read_text())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in dropped]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return Checkpoint.open(folder)


def test_tags_missing_in_the_tokenizer_are_added_where_the_reference_adds_them(tmp_path: Path) -> None:
    assert Vocabulary.from_checkpoint(without(tmp_path, ADDED_TOKENS)).tags == OURS.tags


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    checkpoint = without(tmp_path, ())
    content = json.loads((FOLDER / "tokenizer.json").read_text())
    content["added_tokens"], content["post_processor"] = [], None
    content["model"] = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="has no <s>: it is not the tokenizer of Kosmos-2"):
        Vocabulary.from_checkpoint(checkpoint)
    content["model"]["vocab"] = {"a": 0, "<s>": 1, "<unk>": 2}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="is not a Unigram model"):
        Vocabulary.from_checkpoint(checkpoint)
