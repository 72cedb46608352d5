"""What Ray Serve calls to put the front before its own server."""

from __future__ import annotations

import io
import logging
from contextvars import copy_context
from typing import Any

import pytest
import uvicorn.config

from logs.request_id import REQUEST_ID
from router import ingress
from router.asgi.front import Front
from router.asgi.head import HeadProtocol
from router.config import RouterConfig
from vlm.errors import ConfigError


@pytest.fixture(autouse=True)
def _this_process_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uvicorn.config.HTTP_PROTOCOLS", dict(uvicorn.config.HTTP_PROTOCOLS))
    monkeypatch.setattr(logging.getLogger("router"), "parent", logging.getLogger("router").parent)
    monkeypatch.delenv(ingress.SETTINGS, raising=False)


def test_the_front_has_the_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ingress.SETTINGS, '{"max_requests": 7}')
    monkeypatch.setenv(ingress.SESSION_HEADER, "x-my-session")
    [middleware] = ingress.middlewares()
    assert str(middleware).startswith("Middleware(Front, ")
    assert middleware.kwargs == {
        "config": RouterConfig(max_requests=7), "session_header": "x-my-session", "behind_haproxy": False,
    }  # fmt: skip


@pytest.mark.parametrize(("value", "behind"), [("1", True), ("0", False), (None, False)])
def test_the_front_knows_whether_haproxy_stands_before_it(
    value: str | None, behind: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ingress.HAPROXY, raising=False)
    if value is not None:
        monkeypatch.setenv(ingress.HAPROXY, value)
    assert ingress.middlewares()[0].kwargs["behind_haproxy"] is behind


def test_without_settings_it_has_the_defaults() -> None:
    assert ingress.middlewares()[0].kwargs["config"] == RouterConfig()


def test_uvicorn_servers_of_the_process_limit_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ingress.SETTINGS, '{"max_head_bytes": 7}')
    ingress.middlewares()
    config = uvicorn.Config(Front(lambda *_: None, RouterConfig()))  # type: ignore[arg-type]
    config.load()
    assert issubclass(config.http_protocol_class, HeadProtocol)
    assert config.http_protocol_class.config_of_router.max_head_bytes == 7


def test_what_the_front_logs_has_the_id_of_its_request() -> None:
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(logging.Formatter("%(request_id)s %(message)s"))
    served = logging.getLogger("ray.serve")
    served.addHandler(handler)
    try:
        ingress.middlewares()
        copy_context().run(refuse, "req-of-this-test")
    finally:
        served.removeHandler(handler)
    assert lines.getvalue() == "req-of-this-test refused\n"


def refuse(request_id: str) -> None:
    REQUEST_ID.set(request_id)
    logging.getLogger("router.asgi.middleware").warning("refused")


@pytest.mark.parametrize(
    ("text", "message"), [("{", "JSON object"), ("[]", "JSON object"), ('{"max_req": 1}', "max_req")]
)
def test_wrong_settings_are_named(text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ingress.SETTINGS, text)
    with pytest.raises(ConfigError, match=message):
        ingress.middlewares()


@pytest.mark.parametrize(
    ("config", "args"),
    [
        ({"applications": [{"import_path": "deployments.app:build", "args": {"a": 1}}]}, "{}"),
        ({"applications": [{"import_path": "router.app:build", "args": {"max_requests": 7}}]}, '{"max_requests": 7}'),
        ({"applications": [{"import_path": "router.app:build"}]}, "{}"),
        ({"applications": None}, "{}"),
        ({"applications": ["nonsense"]}, "{}"),
        ({"applications": 7}, "{}"),
    ],
)
def test_the_settings_are_those_of_the_router_in_a_serve_config(config: dict[str, Any], args: str) -> None:
    assert ingress.environment(config) == {ingress.CALLBACK: "router.ingress:middlewares", ingress.SETTINGS: args}
