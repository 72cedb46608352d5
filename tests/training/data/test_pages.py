"""Pages have words that do not touch and no shapes, and their letters are labels of the grid."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from training.data.drawing import draw
from training.data.pages import page
from training.grid import label
from vlm.types import Box

PAGES = [page(seed) for seed in range(20)]


def apart(one: Box, other: Box) -> bool:
    beside = one.x_max < other.x_min or other.x_max < one.x_min
    return beside or one.y_max < other.y_min or other.y_max < one.y_min


def test_a_seed_is_always_the_same_page() -> None:
    assert [page(seed) for seed in range(5)] == PAGES[:5]
    assert len({one.word for one in PAGES}) == len(PAGES)


def test_words_are_apart_and_within_the_image() -> None:
    for one in PAGES:
        assert not one.shapes
        assert len(one.words) > 1
        assert all(apart(first.box, second.box) for first, second in combinations(one.words, 2))
        assert all(min(word.box.x_min, word.box.y_min) >= 0 for word in one.words)
        assert all(max(word.box.x_max, word.box.y_max) <= 1 for word in one.words)


@pytest.mark.parametrize("number", range(4))
def test_every_word_has_ink_in_its_box(number: int) -> None:
    one = PAGES[number]
    pixels = np.asarray(draw(one), dtype=np.int16)
    height, width = pixels.shape[:2]
    for word in one.words:
        left, right = round(word.box.x_min * width), round(word.box.x_max * width)
        top, bottom = round(word.box.y_min * height), round(word.box.y_max * height)
        inside = np.abs(pixels[top:bottom, left:right] - np.array(one.shade)).max(axis=2)
        assert (inside > 90).mean() > 0.1


def test_letters_of_all_words_are_in_the_grid() -> None:
    cells = label(PAGES[0], 8).classes
    labelled = {chr(ord("A") + code - 1) for code in cells[:, 3:].flatten() if code}
    assert len(labelled & set("".join(word.text for word in PAGES[0].words))) > 0.7 * len(labelled)
    assert (cells[:, 3:] > 0).sum() > len(PAGES[0].words[0].text)
