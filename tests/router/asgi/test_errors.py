"""The one table of errors."""

from __future__ import annotations

import json

import pytest

import router.asgi.errors
import vlm.errors
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
    kinds = {kind for kind in vars(vlm.errors).values() if isinstance(kind, type) and issubclass(kind, VlmError)}
    without = {kind for kind in kinds if row_of(kind("No.")) is TABLE[VlmError]} - {VlmError}
    assert without == {CheckpointError, ConfigError}  # raised while a process starts, so no client gets them


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
