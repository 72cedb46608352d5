"""The published schema: it describes what is sent, key by key."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from tests.vlm.test_grounding_json import groundings
from vlm.grounding_json import to_json
from vlm.grounding_schema import grounding_schema
from vlm.types import Grounding

jsonschema: Any = pytest.importorskip("jsonschema")
SCHEMA = grounding_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_it_is_a_schema_of_a_size_that_can_be_sent() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert len(json.dumps(SCHEMA, separators=(",", ":"))) < 8000


@given(groundings)
def test_every_grounding_fits(grounding: Grounding) -> None:
    VALIDATOR.validate(to_json(grounding, include_raw=True, parts=[grounding]))


def test_the_keys_and_their_order_are_those_of_the_object() -> None:
    sent = to_json(Grounding("detect", "<OD>", None, None))
    assert list(SCHEMA["properties"]) == SCHEMA["required"] == list(sent)


@given(groundings.filter(lambda grounding: bool(grounding.detections)))
def test_the_keys_of_objects_too(grounding: Grounding) -> None:
    assert SCHEMA["$defs"]["ObjectJson"]["required"] == list(to_json(grounding)["objects"][0])


def test_nothing_else_fits() -> None:
    sent = to_json(Grounding("detect", "<OD>", None, None))
    assert not VALIDATOR.is_valid({**sent, "more": 1})
    assert not VALIDATOR.is_valid({**sent, "task": None})
