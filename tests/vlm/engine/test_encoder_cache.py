"""What was seen in an image is kept by the image, within a budget, and never mixed up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vlm.engine.encoder_cache import EncoderCache

SIZE = 4 * 2 * 3  # bytes of one image's features here


def asked(cache: EncoderCache, keys: Sequence[bytes | None]) -> tuple[list[float], list[bool], list[int]]:
    """The first number of each image's features (its key's first byte), who was there, and who was encoded."""
    encoded: list[int] = []

    def encode(indices: Sequence[int]) -> Sequence[Tensor]:
        encoded.extend(indices)
        return [torch.full((2, 3), float((keys[index] or b"\xff")[0])) for index in indices]

    features, there = cache.features(keys, encode)
    return [float(one[0, 0]) for one in features], there, encoded


def test_a_second_question_costs_no_encode() -> None:
    cache = EncoderCache(10 * SIZE)
    assert asked(cache, [b"a", b"b"]) == ([97.0, 98.0], [False, False], [0, 1])
    assert asked(cache, [b"b", b"c", b"a"]) == ([98.0, 99.0, 97.0], [True, False, True], [1])
    assert (cache.encoded, cache.hits, cache.used) == (3, 2, 3 * SIZE)


def test_one_image_asked_often_at_once_is_encoded_once() -> None:
    cache = EncoderCache(10 * SIZE)
    assert asked(cache, [b"a"] * 3) == ([97.0] * 3, [False, True, True], [0])
    assert (cache.encoded, cache.hits) == (1, 2), "images are counted, not keys"


def test_without_a_key_nothing_is_shared_or_kept() -> None:
    cache = EncoderCache(10 * SIZE)
    for _ in range(2):
        assert asked(cache, [None, None]) == ([255.0, 255.0], [False, False], [0, 1])
    assert cache.used == 0


def test_the_least_recently_used_goes_first() -> None:
    cache = EncoderCache(2 * SIZE)
    for keys in ([b"a"], [b"b"], [b"a"], [b"c"]):
        asked(cache, keys)
    assert asked(cache, [b"a"])[1] == [True]
    assert asked(cache, [b"b"])[1] == [False]


def test_a_hit_among_new_images_counts_as_a_use() -> None:
    cache = EncoderCache(3 * SIZE)
    for keys in ([b"a"], [b"b"], [b"c"], [b"a", b"d"], [b"e"]):
        asked(cache, keys)
    assert asked(cache, [b"a", b"d", b"e"])[1] == [True] * 3


def test_a_kept_tensor_keeps_nothing_else_alive() -> None:
    """What the encoder returns are views of the features of its whole batch."""
    cache = EncoderCache(10 * SIZE)
    cache.features([b"a", b"b", b"c"], lambda indices: torch.zeros(len(indices), 2, 3).unbind())
    kept, _ = cache.features([b"a", b"c"], lambda indices: pytest.fail("both are there"))
    assert [one.untyped_storage().nbytes() for one in kept] == [one.nbytes for one in kept] == [SIZE] * 2


@pytest.mark.parametrize("budget", [0, SIZE - 1])
def test_what_does_not_fit_is_not_kept(budget: int) -> None:
    cache = EncoderCache(budget)
    assert asked(cache, [b"a", b"a"])[1] == [False, True]  # once a batch all the same
    assert asked(cache, [b"a"])[1] == [False]
    assert cache.used == 0


@given(
    st.lists(st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), min_size=1, max_size=5), max_size=12),
    st.integers(0, 3),
)
def test_everyone_gets_their_own_image_within_the_budget(batches: list[list[bytes]], capacity: int) -> None:
    cache = EncoderCache(capacity * SIZE)
    for keys in batches:
        values, there, encoded = asked(cache, keys)
        assert values == [float(key[0]) for key in keys]
        assert len(encoded) == there.count(False) == len({keys[index] for index in encoded})
        assert cache.used <= cache.budget
