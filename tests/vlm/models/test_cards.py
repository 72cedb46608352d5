"""The cards are found by looking, and say only what holds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from vlm.models.cards import Card, canonical_name, card_of, cards

ROOT = Path(__file__).parents[3]


def test_every_card_is_found() -> None:
    assert {"blip-large", "florence-2-base"} <= set(cards())


@pytest.mark.parametrize("card", cards().values(), ids=lambda card: card.name)
def test_a_card_is_complete(card: Card) -> None:
    assert card.hugging_face_id in card.aliases
    assert card.display_name
    assert card.description.endswith(".")
    assert card.license
    assert card.published
    assert time.strptime(card.published, "%Y-%m").tm_year >= 2022
    assert card.family_name
    assert card.parameters
    assert len({task.name for task in card.tasks}) == len(card.tasks) > 0
    assert all(prompt.startswith("<") for task in card.tasks for prompt in task.native)
    assert "/" not in card.name


def test_known_files_are_named_by_whole_hashes() -> None:
    for release in (release for card in cards().values() for release in card.releases):
        assert re.fullmatch("[0-9a-f]{40}", release.revision)
        assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) and file.size > 0 for file in release.files)


def test_every_card_names_the_revision_that_the_production_config_pins() -> None:
    applications = yaml.safe_load((ROOT / "serve_config.yaml").read_text())["applications"]
    pinned = {args["checkpoint"]: args["revision"] for one in applications if "checkpoint" in (args := one["args"])}
    assert {card.hugging_face_id: card.releases[0].revision for card in cards().values()} == pinned


def test_names_and_aliases_are_unique() -> None:
    names = [name for card in cards().values() for name in (card.name, *card.aliases)]
    assert len(names) == len(set(names))


def test_an_alias_stands_for_its_model_and_every_other_name_for_itself() -> None:
    assert canonical_name("microsoft/Florence-2-base") == "florence-2-base"
    assert canonical_name("florence-2-base") == "florence-2-base"
    assert canonical_name("somebody/else") == "somebody/else"


def test_a_model_without_a_card_gets_a_minimal_one() -> None:
    assert card_of("somebody/else") == Card("somebody/else", display_name="somebody/else")
    assert card_of("blip-large") is cards()["blip-large"]


def test_cards_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        cards()["mine"] = Card("mine")  # type: ignore[index]  # that is the point


def test_cards_are_read_without_torch() -> None:
    code = "import json, sys, vlm.models.cards; vlm.models.cards.cards(); print(json.dumps('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) is False
