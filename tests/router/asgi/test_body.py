"""Any bytes become a JSON object or an error."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.asgi.body import MAX_JSON_DEPTH, MAX_JSON_ITEMS, MAX_SKIPPED, read_object
from vlm.errors import InvalidRequest


def levels(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


def test_the_depth_of_json_is_bounded() -> None:
    assert read_object(levels(MAX_JSON_DEPTH - 1))
    assert read_object(levels(MAX_JSON_DEPTH - 1).replace(b"1", b"[]"))
    with pytest.raises(InvalidRequest):
        read_object(levels(MAX_JSON_DEPTH - 1).replace(b"1", b"[[]]"))
    with pytest.raises(InvalidRequest):
        read_object(levels(MAX_JSON_DEPTH))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b"\xff", b'{"a":NaN}', b'{"a":-Infinity}', b"1" * 5000, b"[" * 100_000]
)
def test_everything_else_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_object(data)
    assert caught.value.code == "invalid_json"


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


DATA = b'"data:image/png;base64,' + b"A" * 1000 + b'"'


@pytest.mark.parametrize(
    "before",
    [b"", DATA + b",", (DATA + b",") * (MAX_SKIPPED + 1), b'"base64,",', b'"base64,\\"[[[",', b'"no base64,\\\\",'],
    ids=["nothing", "an image", "many images", "no data", "a quote within", "a backslash"],
)
def test_items_are_counted_beside_images(before: bytes) -> None:
    """Whatever is skipped as an image's data, no item is."""
    few = b'{"x":[' + before + b"0]}"
    assert len(read_object(few)["x"]) == before.count(b'",') + 1
    many = b'{"x":[' + before + b",".join([b"0"] * (MAX_JSON_ITEMS + 1)) + b"]}"
    with pytest.raises(InvalidRequest, match="50000 items"):
        read_object(many)


def test_items_after_an_image_that_never_ends() -> None:
    with pytest.raises(InvalidRequest):
        read_object(b'{"x":base64,' + b"[" * (MAX_JSON_ITEMS + 1))


SPELLINGS = [
    b'"\\ud83d\\ude00"', b'"\\ud800"', b'"\\u0000"', '"\u00e9"'.encode(), b'"\xed\xa0\x80"', b'"\x01"', b"-0", b"-0.0",
    b"01", b"1.",
    b"1e400", b"-1E-400", b"1.7976931348623159e308", b"5e-324", b"9007199254740993.0", b"12345678901234567890123",
    b'{"a":1,"b":2,"a":3}', b"NaN", b"nul", b"[1,]", b'"a', b"\xef\xbb\xbf1", b" \t\r\n1", b"\x0b1", b"1" * 5000,
]  # fmt: skip


def by_json(data: bytes) -> Any:
    """What the standard library reads: a representation that tells 1 from 1.0, or None for an error."""
    try:
        return repr(json.loads(data, parse_constant=lambda name: 1 / 0))
    except (ValueError, ZeroDivisionError):
        return None


@pytest.mark.parametrize("value", SPELLINGS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_both_parsers_read_the_same(value: bytes, encoding: str) -> None:
    data = b'{"x": ' + value + b"}"
    if encoding != "utf-8":
        data = data.decode("utf-8", "replace").encode(encoding)
    try:
        assert repr(read_object(data)) == by_json(data)
    except InvalidRequest:
        assert by_json(data) is None


@given(st.lists(st.sampled_from([*SPELLINGS, b"{", b"}", b"[", b"]", b",", b":", b'"a":']), max_size=5))
def test_both_parsers_read_the_same_pieces(pieces: list[bytes]) -> None:
    data = b'{"x":' + b"".join(pieces) + b"}"
    try:
        assert repr(read_object(data)) == by_json(data)
    except InvalidRequest:
        assert by_json(data) is None
