"""Text as it grows against the whole text: the same characters, never half of one, never part of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.oracle import MINIATURES
from vlm.engine.detokenizer import Detokenizer

NAMES = ("blip-large", "florence-2-base", "bytes")
Decode = Callable[[Sequence[int]], str]

texts = st.text(st.sampled_from("ab c.,'é ü\n日本🦄👩\u200d🚀\N{REPLACEMENT CHARACTER}"), max_size=20)


@cache
def tokenizer(name: str) -> Tokenizer:
    """A miniature's, or bare bytes: there every letter beyond ASCII is several tokens."""
    if name == "bytes":
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        made = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        return made
    return Tokenizer.from_file(str(MINIATURES / name / "tokenizer.json"))


def decode_of(name: str) -> Decode:
    return lambda ids: str(tokenizer(name).decode(list(ids), skip_special_tokens=True))


def encode(name: str, text: str) -> list[int]:
    return list(tokenizer(name).encode(text, add_special_tokens=False).ids)


def pieces_of(text: Detokenizer, ids: Sequence[int]) -> list[str]:
    """What a client gets, until a stop string ends it."""
    pieces = []
    for token in ids:
        pieces.append(text.push(token))
        if text.stopped:
            break
    return [*pieces, text.finish()]


def cut_when_stopped(decode: Decode, ids: Sequence[int], stop: tuple[str, ...]) -> str:
    """The plain way: decode all ids anew after each token, and cut at the first stop string there is."""
    for end in range(len(ids) + 1):
        whole = decode(ids[:end])
        settled = end == len(ids) or not whole.endswith("\N{REPLACEMENT CHARACTER}")
        found = [whole.find(one) for one in stop if one in whole]
        if found and settled:
            return whole[: min(found)].strip()
    return decode(ids).strip()


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_pieces_joined_are_the_whole_text(name: str, data: st.DataObject) -> None:
    """Any ids in any order: half characters, stray bytes, special tokens."""
    ids = data.draw(st.lists(st.integers(0, tokenizer(name).get_vocab_size() - 1), max_size=30))
    echo = data.draw(st.integers(0, len(ids)))
    text = Detokenizer(decode_of(name), ids[:echo], ())
    assert "".join(pieces_of(text, ids[echo:])) == text.text == decode_of(name)(ids).strip()


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_held_tokens_give_the_same_text(name: str, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer(name).get_vocab_size() - 1), max_size=30))
    echo = data.draw(st.integers(0, len(ids)))
    growing, held = Detokenizer(decode_of(name), ids[:echo]), Detokenizer(decode_of(name), ids[:echo])
    pieces = pieces_of(growing, ids[echo:])
    for token in ids[echo:]:
        held.hold(token)
    assert held.finish() == held.text == "".join(pieces)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_pieces_that_are_not_stripped_are_all_that_was_decoded(name: str, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer(name).get_vocab_size() - 1), max_size=30))
    text = Detokenizer(decode_of(name), strip=False)
    assert "".join(pieces_of(text, ids)) == text.text == decode_of(name)(ids)


@pytest.mark.parametrize("name", NAMES)
@given(text=texts)
def test_no_piece_ends_within_a_character(name: str, text: str) -> None:
    ids = encode(name, text.replace("\N{REPLACEMENT CHARACTER}", ""))
    pieces = pieces_of(Detokenizer(decode_of(name), (), ()), ids)
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


@pytest.mark.parametrize("name", NAMES)
@given(text=texts, stop=st.lists(texts.filter(lambda one: 0 < len(one) < 4), min_size=1, max_size=3))
def test_stop_strings_cut_as_on_the_whole_text(name: str, text: str, stop: list[str]) -> None:
    ids = encode(name, text)
    growing = Detokenizer(decode_of(name), (), tuple(stop))
    pieces = pieces_of(growing, ids)
    expected = cut_when_stopped(decode_of(name), ids, tuple(stop))
    assert "".join(pieces) == growing.text == expected


@given(text=texts, stop=texts.filter(lambda one: 1 < len(one) < 5))
def test_nothing_is_sent_that_a_stop_string_takes_back(text: str, stop: str) -> None:
    """Wherever the rest of the stop string may come next, what was sent is still how the answer begins."""
    growing, sent, ids = Detokenizer(decode_of("bytes"), (), (stop,)), "", encode("bytes", text)
    for end, token in enumerate(ids, start=1):
        sent += growing.push(token)
        for known in range(len(stop)):
            answer = cut_when_stopped(decode_of("bytes"), [*ids[:end], *encode("bytes", stop[known:])], (stop,))
            assert answer.startswith(sent) or not decode_of("bytes")(ids[:end]).endswith(stop[:known])
        if growing.stopped:
            break
    assert stop not in sent + growing.finish()


def test_text_that_could_begin_a_stop_string_waits_for_the_next_token() -> None:
    text = Detokenizer(decode_of("bytes"), (), ("END",))
    assert [text.push(token) for token in encode("bytes", "aENb")] == ["a", "", "", "ENb"]
    assert [text.push(token) for token in encode("bytes", "END")] == ["", "", ""]
    assert text.stopped
    assert (text.text, text.finish()) == ("aENb", "")


@pytest.mark.parametrize("stop", [("b", "ab"), ("ab", "b"), ("never", "b", "ab")])
@pytest.mark.parametrize("pieces", [["xab"], ["x", "ab"], ["x", "a", "b"], ["xa", "b", "y"]])
def test_of_two_stop_strings_the_one_earlier_in_the_text_cuts(stop: tuple[str, ...], pieces: list[str]) -> None:
    """The other is listed before it, or ends at the same place."""
    text = Detokenizer(lambda ids: "".join(pieces[one] for one in ids), (), stop)
    sent = ""
    for token in range(len(pieces)):
        sent += text.push(token)
        if text.stopped:
            break
    assert (text.text, sent + text.finish(), text.stopped) == ("x", "x", True)


def test_an_emoji_comes_whole() -> None:
    text = Detokenizer(decode_of("bytes"), (), ())
    assert [text.push(token) for token in encode("bytes", "é🦄")] == ["", "é", "", "", "", "🦄"]


def test_an_answer_cut_within_a_character_says_so() -> None:
    text = Detokenizer(decode_of("bytes"), (), ())
    assert [text.push(token) for token in encode("bytes", "a🦄")[:3]] == ["a", "", ""]
    assert text.finish() == "\N{REPLACEMENT CHARACTER}"


def test_the_echo_comes_first_and_is_not_searched_for_stop_strings() -> None:
    text = Detokenizer(decode_of("blip-large"), encode("blip-large", "a picture of"), ("picture", "red"))
    pieces = pieces_of(text, encode("blip-large", "a red circle"))
    assert pieces[0].startswith("a picture of a")
    assert text.text == "".join(pieces) == "a picture of a"
    assert text.stopped


def test_an_echo_alone_is_an_answer() -> None:
    text = Detokenizer(decode_of("blip-large"), encode("blip-large", "an image"), ())
    assert (text.finish(), text.text) == ("an image", "an image")


def test_a_long_answer_decodes_no_more_than_two_pieces_at_a_time() -> None:
    """Otherwise the time of an answer grows with the square of its length."""
    decoded: list[int] = []

    def counting(ids: Sequence[int]) -> str:
        decoded.append(len(ids))
        return "x" * len(ids)

    pieces_of(Detokenizer(counting, (), ()), range(200))
    assert max(decoded) <= 2
