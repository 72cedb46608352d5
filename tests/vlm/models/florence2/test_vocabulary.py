"""Florence-2's tokens in both layouts; the miniature's own tokenizer is the oracle for the original upload's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor

from vlm.checkpoint.files import Checkpoint
from vlm.errors import CheckpointError
from vlm.models.florence2.vocabulary import Vocabulary

FOLDER = Path(__file__).parents[4] / "miniatures" / "florence-2-base"
NATIVE = Vocabulary.from_checkpoint(Checkpoint.open(FOLDER))
THEIRS: Any = AutoProcessor.from_pretrained(FOLDER)
BART_SIZE: int = THEIRS.tokenizer.convert_tokens_to_ids("<od>")
"""Ids below are BART's: byte-level BPE and its five special tokens."""

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
IDS = st.lists(st.integers(0, 1599), max_size=40)


ADDED = sorted(THEIRS.tokenizer.get_added_vocab())


def special_free(text: str) -> bool:
    return not any(token in text for token in ADDED if not token.startswith("<loc_"))


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> Checkpoint:
    """A folder whose tokenizer.json is the miniature's after ``change``."""
    content = json.loads((FOLDER / "tokenizer.json").read_text())
    change(content)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return Checkpoint.open(folder)


def only_bart(content: dict[str, Any]) -> None:
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < BART_SIZE]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    """As in the original upload, whose remote code adds Florence-2's tokens at run time."""
    checkpoint = rewritten(tmp_path_factory.mktemp("original"), only_bart)
    assert checkpoint.tokenizer().get_vocab_size() == BART_SIZE
    return Vocabulary.from_checkpoint(checkpoint)


def test_the_original_layout_gets_the_native_ids(original: Vocabulary) -> None:
    assert original.tokenizer.get_vocab() == NATIVE.tokenizer.get_vocab()
    assert original.bins == NATIVE.bins
    assert original.special_tokens == NATIVE.special_tokens
    assert original.image == NATIVE.image == THEIRS.image_token_id


def test_a_native_tokenizer_without_the_image_token_gets_it_last(tmp_path: Path) -> None:
    checkpoint = rewritten(tmp_path, lambda content: content["added_tokens"].pop())
    assert Vocabulary.from_checkpoint(checkpoint).image == NATIVE.image


def test_ids_are_the_tokenizers() -> None:
    tokenizer = THEIRS.tokenizer
    assert (NATIVE.bos, NATIVE.eos, NATIVE.pad) == (
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    assert {tokenizer.convert_ids_to_tokens(id_): number for id_, number in NATIVE.bins.items()} == {
        f"<loc_{number}>": number for number in range(1000)
    }


def test_special_tokens_are_all_added_tokens_with_a_meaning_of_their_own() -> None:
    tokens = set(THEIRS.tokenizer.convert_ids_to_tokens(sorted(NATIVE.special_tokens)))
    assert {"<od>", "</ocr>", "<sep>", "<poly>", "<and>", "<image>", "<unk>", "<mask>"} <= tokens
    assert not tokens & {"<s>", "</s>", "<pad>", "<loc_0>", "<loc_999>"}


@pytest.mark.parametrize("token", ["<s>", "</s>", "<pad>"])
def test_a_tokenizer_of_another_family_is_refused(tmp_path: Path, token: str) -> None:
    def rename(content: dict[str, Any]) -> None:
        number = content["model"]["vocab"].pop(token)
        content["model"]["vocab"][token.upper()] = number
        content["added_tokens"] = [added for added in content["added_tokens"] if added["content"] != token]
        content["post_processor"] = None

    with pytest.raises(CheckpointError, match=f"has no {token}: it is not the tokenizer of Florence-2"):
        Vocabulary.from_checkpoint(rewritten(tmp_path, rename))


@settings(max_examples=200, deadline=None)
@given(text=TEXT.filter(special_free))
def test_any_text_is_encoded_as_the_reference_does(text: str) -> None:
    assert list(NATIVE.encode(text)) == THEIRS.tokenizer(text, add_special_tokens=False)["input_ids"]


@settings(max_examples=100, deadline=None)
@given(pieces=st.lists(st.one_of(TEXT.filter(special_free), st.integers(0, 999).map("<loc_{}>".format)), max_size=6))
def test_locations_within_text_are_encoded_as_the_reference_does(pieces: list[str]) -> None:
    text = "".join(pieces)
    if special_free(text):  # joining may have made a special token
        assert list(NATIVE.encode(text)) == THEIRS.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("text", ["<loc_1000>", "<loc_007>", "<loc_-1>", "<loc_>", "<loc_1", "<LOC_1>", "<loc_٣>"])
def test_what_only_looks_like_a_location_is_letters(text: str) -> None:
    assert not NATIVE.bins.keys() & set(NATIVE.encode(text))
    assert NATIVE.decode(NATIVE.encode(text)) == text


@settings(max_examples=200, deadline=None)
@given(pieces=st.lists(st.one_of(TEXT, st.sampled_from(ADDED)), max_size=8))
def test_no_text_can_inject_a_special_token(pieces: list[str]) -> None:
    ids = set(NATIVE.encode("".join(pieces)))
    assert not ids & (NATIVE.special_tokens | {NATIVE.bos, NATIVE.eos, NATIVE.pad})


@pytest.mark.parametrize(
    "token", ["</s>", "<s>", "<pad>", "<image>", "<mask>", "<unk>", "<od>", "<poly>", "<grounding>"]
)
def test_a_spelled_special_token_stays_text_in_both_layouts(original: Vocabulary, token: str) -> None:
    number = NATIVE.tokenizer.token_to_id(token)
    assert number in THEIRS.tokenizer(f"a {token} b", add_special_tokens=False)["input_ids"], "the reference reads it"
    for vocabulary in (NATIVE, original):
        ids = vocabulary.encode(f"a {token} b")
        assert number not in ids
        assert vocabulary.decode(ids) == f"a {token} b"


@settings(max_examples=200, deadline=None)
@given(text=TEXT)
def test_encoding_loses_nothing(text: str) -> None:
    assert NATIVE.decode(NATIVE.encode(text), special=True) == text


def test_a_lone_surrogate_does_not_crash() -> None:
    assert NATIVE.decode(NATIVE.encode("a \ud800 b")) == "a ? b"


@settings(max_examples=200, deadline=None)
@given(ids=IDS, special=st.booleans())
def test_any_ids_are_decoded_as_the_reference_does(ids: list[int], special: bool) -> None:
    assert NATIVE.decode(ids, special=special) == THEIRS.decode(ids, skip_special_tokens=not special)


def test_a_special_token_that_the_file_calls_ordinary_is_kept_out_of_text(tmp_path: Path) -> None:
    def ordinary(content: dict[str, Any]) -> None:
        for added in content["added_tokens"]:
            added["special"] = False

    vocabulary = Vocabulary.from_checkpoint(rewritten(tmp_path, ordinary))
    ids = vocabulary.encode("a <od></s><loc_5> b")
    assert not set(ids) & (vocabulary.special_tokens | {vocabulary.bos, vocabulary.eos})
    assert [vocabulary.bins[one] for one in ids if one in vocabulary.bins] == [5]
    assert vocabulary.special_tokens == NATIVE.special_tokens
