"""docs/api.md names every field and every key of Moondream's routes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from router.conversation.fields import MAX_REFERENCES
from router.moondream.format import ROUTES
from router.moondream.request import IMPOSSIBLE
from router.moondream.response import metrics_json, reasoning_json, segment_json
from router.moondream.schema import BODIES, Settings
from tests.docs.json_keys import keys_of
from tests.router.moondream.asking import found, point, polygon
from vlm.models.cards import cards

PAGE = (Path(__file__).parents[2] / "docs/api.md").read_text("utf-8")
SECTION = PAGE[PAGE.index("\n## Moondream's client") :].split("\n## ")[1]
OUTLINE = found(polygon(((0, 0), (1, 0), (1, 1))))
REASONED = found(point(0, 0, 0, 1), reasoning="a")


KEYS = {*metrics_json(OUTLINE), *keys_of(segment_json(OUTLINE.grounding)), *keys_of(reasoning_json(REASONED.grounding))}


@pytest.mark.parametrize("route", ROUTES)
def test_the_table_has_the_fields_of_each_route(route: str) -> None:
    row = next(line for line in SECTION.splitlines() if line.startswith(f"| `POST /v1/{route}` |"))
    shared = {"model", "settings", "drop_params"}
    assert {*re.findall(r"`(\w+)`", row.split("|")[2])} == BODIES[route].model_fields.keys() - shared


@pytest.mark.parametrize("name", sorted({name for body in BODIES.values() for name in body.model_fields}))
def test_every_field_has_a_row(name: str) -> None:
    assert re.search(rf"^\| `{name}` \|", SECTION, re.MULTILINE)


@pytest.mark.parametrize("name", sorted({*Settings.model_fields, *IMPOSSIBLE} - {"settings.variant"}))
def test_every_setting_is_named(name: str) -> None:
    assert f"`{name}`" in SECTION


@pytest.mark.parametrize("key", sorted(KEYS))
def test_every_key_of_an_answer_is_described(key: str) -> None:
    assert re.search(rf"[`\"]{key}[`\"]", SECTION)


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"| `spatial_refs` | list of up to {MAX_REFERENCES} |" in SECTION
    own = [name for name, card in cards().items() if card.api == "moondream"]
    assert f"| `model` | string | `{own[0]}` |" in SECTION
