"""The front in Serve's own processes: what ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` names.

Serve calls :func:`middlewares` in every process that clients connect to: its proxies, or with direct ingress the
replicas of the router (and of the models, whose ports are of no use to a client). Both variables must be in the
environment of every node before Ray starts there.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from starlette.middleware import Middleware

from logs.lines import set_up
from router.asgi.front import Front
from router.asgi.memory import return_memory
from router.config import RouterConfig
from vlm.errors import ConfigError

CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
SETTINGS = "GIGAROUTER_FRONT"
"""The variable with the router's settings as JSON: the ``args`` of its application. Without it, the defaults hold."""
ROUTER = "router.app:build"
SESSION_HEADER = "RAY_SERVE_SESSION_ID_HEADER_KEY"
"""Serve's variable for the name of the header that it reads beside ``x-session-id``."""

HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
WITHOUT_PROXY = (HAPROXY, "RAY_SERVE_ENABLE_DIRECT_INGRESS")
"""With one of these, Serve calls :func:`middlewares` in replicas, those of models included: there blocks of this size
are tensors, not bodies. The router's replicas return their memory themselves."""


def middlewares() -> list[Middleware]:
    """What Serve is to put around its HTTP server.

    Raises:
        ConfigError: The settings in the environment are wrong.
    """
    served = logging.getLogger("router").parent = logging.getLogger("ray.serve")  # the only one with handlers
    set_up(served, "text", dict)  # only the ids: the format of its proxies is up to Serve
    config = RouterConfig.from_args(_settings(os.environ.get(SETTINGS, "{}")))
    limit_heads(config)
    if not any(os.environ.get(name) == "1" for name in WITHOUT_PROXY):
        return_memory()
    session_header, behind_haproxy = os.environ.get(SESSION_HEADER, ""), os.environ.get(HAPROXY) == "1"
    return [Middleware(Front, config=config, session_header=session_header, behind_haproxy=behind_haproxy)]


def environment(serve_config: Mapping[str, Any]) -> dict[str, str]:
    """The variables that put the front before the router of a Serve config, with the router's own settings."""
    args = next((one.get("args") for one in routers_of(serve_config)), None)
    return {CALLBACK: "router.ingress:middlewares", SETTINGS: json.dumps(args or {}, default=str)}


def applications_of(serve_config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The applications of a Serve config that are mappings; Ray refuses the others."""
    listed = serve_config.get("applications")
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def routers_of(serve_config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those of its applications that are routers: one, as a rule."""
    return [one for one in applications_of(serve_config) if one.get("import_path") == ROUTER]


def limit_heads(config: RouterConfig) -> None:
    """Have the uvicorn servers of this process limit the heads of requests; Serve offers no setting for it."""
    import uvicorn.config

    from router.asgi.head import head_protocol

    protocols: dict[str, Any] = uvicorn.config.HTTP_PROTOCOLS  # its values may be classes; "auto" is what Serve takes
    protocols["auto"] = head_protocol(config)


def _settings(text: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise ConfigError(f"The variable {SETTINGS} must hold a JSON object with settings of the router.")
    return settings
