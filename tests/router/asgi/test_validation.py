"""The error for a wrong field, for models of any format."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import ConfigDict, Field

from router.asgi.validation import Checked, UnicodeText, validated
from vlm.errors import InvalidRequest


class Circle(Checked):
    type: Literal["circle"]
    radius: Annotated[float, Field(gt=0)]


class Square(Checked):
    type: Literal["square"]
    sides: Annotated[list[float], Field(min_length=2, max_length=2)]


class Pair(Checked):
    left: Circle


class Drawing(Checked):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=2, max_length=9)] = "untitled"
    note: UnicodeText = ""
    shape: Annotated[Circle | Square, Field(discriminator="type")] | None = None
    frames: list[Drawing] = Field(default_factory=list)
    pair: Pair | None = None


@pytest.mark.parametrize(
    ("raw", "param", "code", "message"),
    [
        ({"nmae": 1}, "nmae", "unsupported_parameter", "frames, pair. Did you mean 'name'?"),
        ({"zzz": 1}, "zzz", "unsupported_parameter", "not supported; the body takes: name, note, shape, frames, pair."),
        ({"name": "x"}, "name", "invalid_value", "must have at least 2 characters."),
        ({"name": "x" * 10}, "name", "string_above_max_length", "has more than 9 characters."),
        ({"note": "\ud800x"}, "note", "invalid_value", "must be valid Unicode text."),
        ({"name": 1}, "name", "invalid_type", "must be a string."),
        ({"shape": {"type": "star"}}, "shape", "invalid_value", "must be an object with a type of: circle, square."),
        ({"shape": {}}, "shape", "invalid_value", "must be an object with a type of: circle, square."),
        ({"shape": 7}, "shape", "invalid_type", "must be an object with a type of: circle, square."),
        ({"shape": {"type": "circle"}}, "shape.radius", "missing_required_parameter", "is required."),
        ({"shape": {"type": "circle", "radius": 0}}, "shape.radius", "invalid_value", "must be greater than 0."),
        ({"shape": {"type": "circle", "radius": "1"}}, "shape.radius", "invalid_type", "must be a number."),
        ({"shape": {"type": "square", "sides": [1]}}, "shape.sides", "invalid_value", "must have at least 2 items."),
        ({"shape": {"type": "square", "sides": [1] * 3}}, "shape.sides", "invalid_value", "has more than 2 items."),
        ({"frames": {}}, "frames", "invalid_type", "must be a list."),
        ({"frames": [1]}, "frames[0]", "invalid_type", "must be an object."),
        ({"pair": {"left": 1}}, "pair.left", "invalid_type", "must be an object with the keys: type, radius."),
        ({"frames": [{"frames": [{"{}": 1}]}]}, "frames[0].frames[0].{}", "unsupported_parameter",
         "frames[0].frames[0] takes: name, note, shape, frames, pair."),
    ],
)  # fmt: skip
def test_message_code_and_path(raw: dict[str, Any], param: str, code: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        validated(Drawing, raw)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.message.startswith(f"{param}: ")
    assert caught.value.message.endswith(message)


def test_a_very_long_key_is_cut() -> None:
    with pytest.raises(InvalidRequest) as caught:
        validated(Drawing, {"k" * 10_000: 1})
    assert len(caught.value.message) < 400


class Numbers(Checked):
    a: int
    b: float
    c: bool | None = None


@pytest.mark.parametrize("number", [2, 2.0, -3.0, 2.0**53])
def test_a_whole_number_is_one_however_it_is_spelled(number: float) -> None:
    read = validated(Numbers, {"a": number, "b": number})
    assert (read.a, type(read.a)) == (number, int)
    assert (read.b, type(read.b)) == (number, float)


@pytest.mark.parametrize("number", [1.5, float("inf"), 1e17, "1", True])
def test_other_numbers_are_not_whole(number: object) -> None:
    with pytest.raises(InvalidRequest):
        validated(Numbers, {"a": number, "b": 1})
    with pytest.raises(InvalidRequest):
        validated(Numbers, {"a": 1, "b": 1, "c": 1.0})
