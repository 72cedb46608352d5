"""What OpenAI's client makes of the refusals of accounts: which exception, and how often it asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

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
from router.asgi.errors import error_body, error_response, row_of
from tests.listening import listening
from vlm.errors import VlmError


@dataclass
class Refusing:
    """A server that refuses every request for the same reason."""

    error: VlmError = field(default_factory=lambda: VlmError("No."))
    asked: int = 0
    url: str = ""

    def answer(self, _request: Request) -> Response:
        self.asked += 1
        return error_response(self.error)


@pytest.fixture(scope="module")
def server() -> Iterator[Refusing]:
    refusing = Refusing()
    app = Starlette(routes=[Route("/v1/chat/completions", refusing.answer, methods=["POST"])])
    with listening(app) as refusing.url:
        yield refusing


@pytest.mark.parametrize(
    ("error", "kind", "asked"),
    [
        (NoKey("No."), openai.AuthenticationError, 1),
        (WrongKey("No."), openai.AuthenticationError, 1),
        (NotAllowed("No."), openai.PermissionDeniedError, 1),
        (ModelNotAllowed("No."), openai.PermissionDeniedError, 1),
        (NotFound("No."), openai.NotFoundError, 1),
        (Conflict("No."), openai.BadRequestError, 1),
        (KeyReused("No."), openai.BadRequestError, 1),
        (QuotaSpent("No."), openai.RateLimitError, 1),
        (LimitReached("No.", kind="tokens", retry_after_s=0.01), openai.RateLimitError, 3),
        (AccountsUnavailable("No."), openai.InternalServerError, 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_refusal(error: VlmError, kind: type[openai.APIStatusError], asked: int, server: Refusing) -> None:
    server.error, server.asked = error, 0
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="gr-x") as client,
        pytest.raises(openai.APIStatusError) as refused,
    ):
        client.chat.completions.create(model="m", messages=[])
    assert type(refused.value) is kind
    assert (refused.value.code, refused.value.param) == (error_body(error)["error"]["code"], row_of(error).param)
    assert server.asked == asked
