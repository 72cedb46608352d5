"""The one table of errors."""

from __future__ import annotations

import json
import pickle

import pytest

import accounts.errors
import router.asgi.errors
import vlm.errors
from accounts.errors import (
    AccountsUnavailable,
    Conflict,
    KeyReused,
    LimitReached,
    ModelNotAllowed,
    NoKey,
    NotAllowed,
    NotFound,
    QuotaSpent,
    WrongKey,
)
from router.asgi.errors import TABLE, BodyTooLarge, encode, error_body, error_response, row_of
from vlm.errors import (
    CheckpointError,
    ConfigError,
    DeadlineExceeded,
    EngineFailure,
    InvalidImage,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    UnsupportedTask,
    VlmError,
)


@pytest.mark.parametrize(
    ("error", "status", "kind", "code", "param"),
    [
        (InvalidRequest("No."), 400, "invalid_request_error", None, None),
        (InvalidRequest("No.", "top_p", "invalid_value"), 400, "invalid_request_error", "invalid_value", "top_p"),
        (InvalidImage("No.", "here"), 400, "invalid_request_error", "invalid_image", "here"),
        (InvalidImage("No.", "here", "image_too_large"), 400, "invalid_request_error", "image_too_large", "here"),
        (UnsupportedTask("No."), 400, "invalid_request_error", "unsupported_task", "task"),
        (ModelNotFound("No."), 404, "invalid_request_error", "model_not_found", "model"),
        (BodyTooLarge("No."), 413, "invalid_request_error", "request_too_large", None),
        (Overloaded("No."), 503, "server_error", "overloaded", None),
        (ModelNotReady("No."), 503, "server_error", "model_not_ready", "model"),
        (DeadlineExceeded("No."), 504, "server_error", "timeout", None),
        (EngineFailure("No."), 500, "server_error", "engine_failure", None),
        (NoKey("No."), 401, "invalid_request_error", None, None),
        (WrongKey("No."), 401, "invalid_request_error", "invalid_api_key", None),
        (NotAllowed("No."), 403, "invalid_request_error", "key_not_allowed", None),
        (ModelNotAllowed("No."), 403, "invalid_request_error", "model_not_allowed", "model"),
        (ModelNotAllowed("No.", "task"), 403, "invalid_request_error", "model_not_allowed", "task"),
        (NotFound("No."), 404, "invalid_request_error", "not_found", None),
        (Conflict("No."), 400, "invalid_request_error", "conflict", None),
        (KeyReused("No."), 400, "invalid_request_error", "idempotency_key_reused", None),
        (LimitReached("No.", kind="tokens", retry_after_s=2), 429, "tokens", "rate_limit_exceeded", None),
        (LimitReached("No."), 429, "requests", "rate_limit_exceeded", None),
        (AccountsUnavailable("No."), 503, "server_error", "accounts_unavailable", None),
        (CheckpointError("No."), 500, "server_error", None, None),
        (VlmError("No."), 500, "server_error", None, None),
    ],
)
def test_table(error: VlmError, status: int, kind: str, code: str | None, param: str | None) -> None:
    answer = error_response(error)
    assert answer.status_code == status
    expected = {"error": {"message": "No.", "type": kind, "param": param, "code": code}}
    assert json.loads(bytes(answer.body)) == expected == error_body(error)
    assert ("retry-after" in answer.headers) == (status in (429, 503))


def test_every_error_of_the_library_has_a_row() -> None:
    named = [*vars(vlm.errors).values(), *vars(accounts.errors).values()]
    kinds = {kind for kind in named if isinstance(kind, type) and issubclass(kind, VlmError)}
    without = {kind for kind in kinds if row_of(kind("No.")) is TABLE[VlmError]} - {VlmError}
    assert without == {CheckpointError, ConfigError}  # raised while a process starts, so no client gets them


def test_what_a_budget_does_not_cover_is_not_tried_again() -> None:
    """OpenAI's clients would, since its status is that of a limit."""
    answer = error_response(QuotaSpent("No."))
    kind = "insufficient_quota"
    assert answer.status_code == 429
    assert json.loads(bytes(answer.body)) == {"error": {"message": "No.", "type": kind, "param": None, "code": kind}}
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(
    ("left_s", "seconds", "milliseconds"),
    [(0.0, "1", "1"), (0.0004, "1", "1"), (0.25, "1", "250"), (1.0, "1", "1000"), (59.0001, "60", "59001")],
)
def test_a_limit_says_until_when(left_s: float, seconds: str, milliseconds: str) -> None:
    """Never less, so that who waits that long is let in."""
    headers = error_response(LimitReached("No.", retry_after_s=left_s)).headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == (seconds, milliseconds)
    assert "x-should-retry" not in headers


def test_a_limit_that_was_reached_is_the_same_on_every_side() -> None:
    error = LimitReached("No.", kind="images", retry_after_s=2.5)
    for same in (pickle.loads(pickle.dumps(error)), error.located("No.", None)):
        assert (same.message, same.param, same.kind, same.retry_after_s) == ("No.", None, "images", 2.5)


def test_who_needs_a_key_is_told_how_to_send_it() -> None:
    for error in (NoKey("No."), WrongKey("No.")):
        assert error_response(error).headers["www-authenticate"] == "Bearer"
    assert "www-authenticate" not in error_response(NotAllowed("No.")).headers


def test_a_subclass_gets_the_row_of_its_nearest_ancestor() -> None:
    class Blurred(InvalidImage):
        pass

    assert row_of(Blurred("No.")) is TABLE[InvalidImage]


def test_retry_after_is_short_enough_for_every_client() -> None:
    waits = [row.retry_after_s for row in TABLE.values() if row.retry_after_s is not None]
    assert waits
    assert all(1 <= wait <= 5 for wait in waits)


def test_further_keys_stand_beside_the_error() -> None:
    answer = error_response(ModelNotReady("No."), {"models": []})
    assert set(json.loads(bytes(answer.body))) == {"error", "models"}


def test_encode_is_compact_valid_utf8_and_has_no_nan() -> None:
    assert encode({"a": "é\ud800"}) == '{"a":"é?"}'.encode()
    with pytest.raises(ValueError, match="JSON compliant"):
        encode({"a": float("nan")})


def test_an_unexpected_error_does_not_tell_its_cause() -> None:
    assert error_body(router.asgi.errors.INTERNAL)["error"]["code"] == "internal_error"
