"""What Ray Serve reads of a request's headers before the router does."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.asgi.request_headers import clean

ID = b"x-request-id"


@pytest.mark.parametrize(
    "name",
    [
        "x-request-timeout-seconds", "x_request_timeout_seconds", "x-request-disconnect-disabled", "x-session-id",
        "X-Session_Id", "serve_multiplexed_model_id", "serve-multiplexed-model-id", "x-serve-router-replica",
        "x-serve-anything", "x-my-session", "X_My-Session",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [b"1", b"\xff", b""])
def test_what_serve_would_obey_is_taken_out(name: str, value: bytes) -> None:
    kept = clean([(name.encode(), value), (b"accept", b"*/*")], "X-My-Session")
    assert [header for header in kept if header[0] != ID] == [(b"accept", b"*/*")]


def test_what_serve_could_not_decode_is_taken_out() -> None:
    headers = [(b"traceparent", b"\xff"), (b"tracestate", b"a=\xff"), (b"x-\xff", b"1"), (b"x-name", b"\xff")]
    assert clean(headers)[:-1] == [(b"x-name", b"\xff")]  # nobody but us reads the last
    assert clean([(b"traceparent", b"00-1")])[0] == (b"traceparent", b"00-1")


@pytest.mark.parametrize(
    "ids", [[], [b""], [b"a b"], [b"\xff"], ["é".encode()], [b"x" * 129], [b"one", b"two"], [b"one", b"one"]]
)
def test_an_id_that_is_missing_or_unsafe_is_replaced(ids: list[bytes]) -> None:
    [(name, value)] = clean([(ID, one) for one in ids])
    assert name == ID
    assert re.fullmatch(rb"req_[0-9a-f]{32}", value)


def test_a_safe_id_is_kept() -> None:
    assert clean([(ID, b"my-1.2:3_4")]) == [(ID, b"my-1.2:3_4")]


@given(st.lists(st.tuples(st.binary(), st.binary())))
def test_any_headers_can_be_decoded_as_serve_does_and_cleaning_again_changes_nothing(
    headers: list[tuple[bytes, bytes]],
) -> None:
    kept = clean(headers)
    assert all(name.decode() for name, _ in kept if name)
    assert [value.decode() for name, value in kept if name == ID]
    assert clean(kept) == kept
