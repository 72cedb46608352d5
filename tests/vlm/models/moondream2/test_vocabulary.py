"""Words stay words, marks are marks, and the tokenizer of another generation is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.vlm.models.moondream2.driver import DATA, golden
from vlm.checkpoint.files import Checkpoint
from vlm.checkpoint.hub import HubFile
from vlm.errors import CheckpointError
from vlm.models.moondream2.processor import Moondream2Processor
from vlm.models.moondream2.vocabulary import MARKS, TOKENIZER

OURS = golden()[1].vocabulary
THEIRS = Tokenizer.from_file(str(DATA / "tokenizer.json"))
WORDS = st.text(st.characters(codec="utf-8"), max_size=30)


def test_marks_are_the_first_ids() -> None:
    assert OURS.marks == frozenset(range(21))
    assert [THEIRS.id_to_token(token) for token in range(21)] == list(MARKS)


@given(text=WORDS.filter(lambda text: "<|" not in text))
def test_words_have_the_originals_ids(text: str) -> None:
    assert OURS.encode(text) == tuple(THEIRS.encode(text).ids)
    assert OURS.decode(OURS.encode(text)) == text


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_in_words_is_mere_letters(mark: str) -> None:
    assert THEIRS.token_to_id(mark) in THEIRS.encode(f"a {mark} dog").ids, "the original lets a client write it"
    for text in (mark, f"a {mark} dog", f"{mark}{mark}", f"<|{mark}|>", f"{mark} ", f" {mark}"):
        assert not set(OURS.encode(text)) & OURS.marks
        assert OURS.decode(OURS.encode(text)) == text


@given(pieces=st.lists(st.one_of(WORDS, st.sampled_from([*MARKS, "<|", "|>", "md_reserved_", "3"])), max_size=8))
def test_no_text_becomes_a_mark(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert not set(OURS.encode(text)) & OURS.marks
    assert OURS.decode(OURS.encode(text)) == text


def test_half_a_surrogate_pair_is_no_crash() -> None:
    assert OURS.encode("a \ud800 b") == OURS.encode("a ? b")


def test_marks_and_places_have_no_text() -> None:
    words = OURS.encode(" dog")
    assert OURS.decode([1, *words, 0, 5, 1024, 2000, 10**6]) == " dog"
    assert OURS.decode([1, *words, 0], special=True) == "<|md_reserved_0|> dog<|endoftext|>"


def changed(folder: Path, change: Any) -> Checkpoint:
    """The small model's folder with another tokenizer, without weights."""
    shutil.copytree(DATA, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors", "images"))
    content = json.loads((DATA / "tokenizer.json").read_text("utf-8"))
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return Checkpoint.open(folder)


def as_codegen(content: dict[str, Any]) -> None:
    """Its one mark comes last, as in the file that the weights' repository still has; runs of spaces are no marks."""
    mark = {**content["added_tokens"][0], "id": 1023}
    spaces = {**mark, "id": 1024, "content": "  ", "special": False, "normalized": True}
    content["added_tokens"] = [mark, spaces]
    names = {token: name for name, token in content["model"]["vocab"].items()}
    names[0], names[1023] = names[1023], names[0]
    content["model"]["vocab"] = {name: token for token, name in names.items()}
    content["model"]["merges"] = []


def without_marks(content: dict[str, Any]) -> None:
    del content["added_tokens"][3:]


def other_words(content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary["query"], vocabulary["short"] = vocabulary["short"], vocabulary["query"]


@pytest.mark.parametrize("change", [as_codegen, without_marks, other_words])
def test_the_tokenizer_of_other_weights_is_refused_and_the_right_one_named(tmp_path: Path, change: Any) -> None:
    with pytest.raises(CheckpointError, match="is not the one that weights of 2025-06-21 were trained with") as caught:
        Moondream2Processor.from_checkpoint(changed(tmp_path, change))
    assert TOKENIZER.repository in caught.value.message
    assert TOKENIZER.revision in caught.value.message


def plain_marks(content: dict[str, Any]) -> None:
    for token in content["added_tokens"]:
        token.update(special=False, normalized=True)


def test_marks_need_not_be_flagged_special(tmp_path: Path) -> None:
    words = Moondream2Processor.from_checkpoint(changed(tmp_path, plain_marks)).vocabulary
    assert words.decode([1, *words.encode(f"a {MARKS[3]}")]) == f"a {MARKS[3]}"
    assert not set(words.encode(f"a {MARKS[3]}")) & words.marks


def whole_words(content: dict[str, Any]) -> None:
    content["model"]["ignore_merges"] = True


def test_not_even_a_tokenizer_that_looks_whole_words_up_finds_a_mark(tmp_path: Path) -> None:
    words = Moondream2Processor.from_checkpoint(changed(tmp_path, whole_words)).vocabulary
    for mark in MARKS:
        assert not set(words.encode(mark)) & words.marks


def from_the_hub(folder: Path) -> Checkpoint:
    opened = Checkpoint.open(folder)
    return Checkpoint(opened.folder, "vikhyatk/moondream2", "9" * 40, opened.config)


def test_from_the_hub_the_tokenizer_comes_from_its_own_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[HubFile] = []

    def hf_hub_download(repository: str, name: str, *, revision: str) -> str:
        asked.append(HubFile(repository, revision, name))
        return str(DATA / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    changed(tmp_path, as_codegen)
    words = Moondream2Processor.from_checkpoint(from_the_hub(tmp_path)).vocabulary
    assert words.encode("a dog") == OURS.encode("a dog")
    assert asked == [TOKENIZER]


def test_a_tokenizer_that_fits_is_taken_from_beside_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> str:
        raise AssertionError("nothing is to be fetched")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fails)
    changed(tmp_path, lambda content: None)
    assert Moondream2Processor.from_checkpoint(from_the_hub(tmp_path)).vocabulary.size == 1024


def test_offline_without_the_tokenizer_the_message_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    changed(tmp_path, as_codegen)
    with pytest.raises(CheckpointError, match=re.escape(f"tokenizer.json of {TOKENIZER.repository}")):
        Moondream2Processor.from_checkpoint(from_the_hub(tmp_path))
