"""A model card has the latest table of scores under each heading."""

from __future__ import annotations

from pathlib import Path

from training.model_card import CARD, add_scores, write_card


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
