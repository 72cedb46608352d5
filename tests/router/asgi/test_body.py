"""Any bytes become a JSON object or an error."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.asgi.body import MAX_JSON_DEPTH, MAX_JSON_ITEMS, read_object
from vlm.errors import InvalidRequest


def levels(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


def test_the_depth_of_json_is_bounded() -> None:
    assert read_object(levels(MAX_JSON_DEPTH - 1))
    with pytest.raises(InvalidRequest):
        read_object(levels(MAX_JSON_DEPTH))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b"\xff", b'{"a":NaN}', b'{"a":-Infinity}', b"1" * 5000, b"[" * 100_000]
)
def test_everything_else_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_object(data)
    assert caught.value.code == "invalid_json"


def test_a_whole_number_is_one_however_it_is_spelled() -> None:
    read = read_object(b'{"a": [1, 1.0, 10e-1, -2.00, 1e3, 1.5, 1e400, 1e17], "b": true}')
    assert read["a"] == [1, 1, 1, -2, 1000, 1.5, float("inf"), 1e17]
    assert [type(one) for one in read["a"]] == [int] * 5 + [float] * 3
    assert read["b"] is True


@given(st.binary(max_size=64))
def test_any_bytes_become_an_object_or_an_error(data: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        assert isinstance(read_object(data), dict)


@pytest.mark.parametrize("item", [b"[]", b"{}", b"0"])
def test_items_are_counted_before_parsing(item: bytes) -> None:
    """Millions of them would keep the interpreter busy for seconds, and delay all other requests."""
    data = b'{"x":[' + b",".join([item] * (MAX_JSON_ITEMS + 1)) + b"]}"
    with pytest.raises(InvalidRequest) as caught:
        read_object(data)
    assert caught.value.code == "invalid_json"


@pytest.mark.parametrize("item", [b"[0]", b'{"a":0}'])
def test_each_list_and_object_counts_too(item: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_object(b'{"x":[' + b",".join([item] * (MAX_JSON_ITEMS // 2)) + b"]}")


def test_as_many_items_as_are_allowed() -> None:
    assert len(read_object(b'{"x":[' + b",".join([b"0"] * (MAX_JSON_ITEMS - 1)) + b"]}")["x"]) == MAX_JSON_ITEMS - 1
