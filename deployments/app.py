"""A model as a Ray Serve application: what a Serve config names as ``deployments.app:build``.

Holds what is the same for every model; what differs between models is in the config. There is one application per
model, with the model's name, so that adding or removing a model leaves the others running and the router finds each by
its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployments.config import ModelConfig
from deployments.replica import Replica
from serve_args.cluster_auth import require_token
from serve_args.cluster_environment import Values, own, require_same

REFUSAL_MARGIN = 32
"""Requests that Serve lets through beyond the engine's capacity.

An engine without free places refuses a request at once with ``Overloaded``, and so does one whose caller holds its
share. Beyond ``max_ongoing_requests`` Serve holds requests back instead, whoever sent them, and they wait until their
deadline. Each request takes one place or more, so an engine never holds more requests than its capacity; the margin
lets it refuse a burst of this many besides.

As many may wait in the handle of each router (``max_queued_requests``), which is what a lost replica leaves to the
others: the routers let in no more than the replicas that run can answer in time, so that it is reached by nothing else.
"""


class CheckedReplica(Replica):
    """Refuses to start on a node where requests would cross otherwise than where the application was built."""

    def __init__(self, config: ModelConfig, built_with: Values) -> None:
        """Compare, and load the checkpoint.

        Raises:
            ConfigError: The node's variables differ; Serve reports the message as the application's.
            CheckpointError: The checkpoint cannot be loaded.
        """
        require_same(built_with)
        super().__init__(config)


def build(args: Mapping[str, Any]) -> Any:
    """One model as a Serve application; its only deployment is named ``Replica`` in a Serve config.

    Args:
        args: The fields of :class:`~deployments.config.ModelConfig`.

    Raises:
        ConfigError: A key is unknown or missing, or a value is impossible; or the cluster asks for no token.
    """
    from ray import serve

    from deployments.routing import by_image

    config = ModelConfig.from_args(args)
    require_token(allow_without=config.allow_unauthenticated_cluster)
    limit = config.engine.capacity + REFUSAL_MARGIN
    options: dict[str, Any] = {"max_ongoing_requests": limit, "max_queued_requests": limit}
    if config.route_by_image:
        options["request_router_config"] = by_image(config.engine.capacity)
    return serve.deployment(name="Replica", **options)(CheckedReplica).bind(config, own())
