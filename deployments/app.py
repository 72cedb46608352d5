"""A model as a Ray Serve application: what a Serve config names as ``deployments.app:build``.

Owns what Serve must know of every model; what differs between models is in the config. One application per model,
named as the model: then a model comes or goes without touching the others, and the router finds it by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployments.config import ModelArgs
from deployments.replica import Replica

MARGIN = 32
"""Requests that Serve lets through beyond the engine's places, so that the engine refuses them with its own error."""


def build(args: Mapping[str, Any]) -> Any:
    """One model as a Serve application; its only deployment is named ``Replica`` in a Serve config.

    ``args`` are the fields of :class:`~deployments.config.ModelArgs`; an unknown one is an error.
    """
    from ray import serve

    settings = ModelArgs.from_args(args)
    deployment = serve.deployment(name="Replica", max_ongoing_requests=settings.places + MARGIN)
    return deployment(Replica).bind(settings)
