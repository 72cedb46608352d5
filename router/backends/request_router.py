"""Lets a deployment name the class that chooses its replicas in the processes that have its handles.

Serve has a setting for this (``request_router_class``), but in release 2.60 it cannot be used with HAProxy: there, the
first deployment of an application may name no class but Serve's own, since HAProxy would pass another by, although no
request of a model comes through HAProxy. A class under Serve's own name is lost where the config has options for the
deployment, because Serve then builds the deployment's settings anew from plain values. The arguments of the class are
plain values, so they stay, and so does the name of a class among them.
"""

from __future__ import annotations

import importlib
from typing import Any

NAMED = "named_request_router"
"""The argument that names the class, as ``package.module.Class``."""


def use_named_request_routers() -> None:
    """From now on, handles that are made in this process take the class that their deployment names, if it does."""
    config: Any = importlib.import_module("ray.serve.config").RequestRouterConfig
    own = config.get_request_router_class
    if getattr(own, "takes_named", False):
        return

    def get_request_router_class(self: Any) -> Any:
        name = (self.request_router_kwargs or {}).get(NAMED)
        if name is None:
            return own(self)
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)

    get_request_router_class.takes_named = True  # type: ignore[attr-defined]
    config.get_request_router_class = get_request_router_class
