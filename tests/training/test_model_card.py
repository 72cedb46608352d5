"""A model card has the latest table of scores under each heading, and those in the repository are up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.evaluate import MINIATURES, NAMES
from training.model_card import CARD, add_scores, write_card
from training.train import load_recipe


def test_a_card_has_the_latest_scores(tmp_path: Path) -> None:
    write_card(tmp_path, "blip-large", 100, 8)
    add_scores(tmp_path, "Any", "first", "one")
    add_scores(tmp_path, "Small", "first", "small")
    add_scores(tmp_path, "Any", "second", "two")
    card = (tmp_path / CARD).read_text()
    assert "license: apache-2.0" in card
    assert "100 steps of 8 images" in card
    assert card.count("## Scores") == 1
    assert "small\n" in card
    assert "two\n" in card
    assert "one\n" not in card


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_card_is_what_training_writes(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    write_card(tmp_path, name, recipe.steps, recipe.batch_size)
    assert (MINIATURES / name / CARD).read_text("utf-8").startswith((tmp_path / CARD).read_text("utf-8"))
