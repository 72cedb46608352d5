"""The labels of a grid's cells, and the head that learns them."""

from __future__ import annotations

import torch

from training.data.world import scene
from training.grid import GridHead, label


def test_labels_have_the_kinds_and_letters_of_the_scene() -> None:
    for seed in range(40):
        one = scene(seed)
        cells = label(one, 8)
        kinds = {int(kind) for kind in cells.classes[:, 0]} - {0}
        assert len(kinds) == len({shape.kind for shape in one.shapes})
        letters = sum(int(letter) > 0 for row in cells.classes[:, 3:] for letter in row)
        assert letters <= (len(one.word.text) if one.word else 0)
        assert bool(letters) == bool(one.word)


def test_the_head_has_a_loss() -> None:
    loss, metrics = GridHead(16, 6)(torch.randn(2, 36, 16), [scene(0), scene(4)])
    assert loss.item() > 0
    assert 0 <= metrics.kind <= 1
