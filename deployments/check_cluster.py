"""What a Serve config asks of the cluster: variables, times, shares of cards, updates. Imports no Ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deployments.check_args import MODEL, settings_of
from deployments.check_problem import Problem, deployments_of, place_of
from router.asgi.outgoing import READING_GRACE_S
from router.config import RouterConfig
from router.ingress import ROUTER, applications_of
from serve_args.cluster_environment import CLUSTER, NAMES, own

Json = Mapping[str, Any]

TIMES = ("RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S", "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S")
"""Variables that must be above the deadline of a request."""

ROLLING_UPDATE = 0.2
"""Serve's ``rolling_update_percentage``, a share in spite of its name."""


def cluster_problems(config: Json) -> Iterator[Problem]:
    """All of them; the last two kinds are warnings."""
    for application in applications_of(config):
        if application.get("import_path") in (ROUTER, MODEL):
            yield from _variables(application)
            yield from _updates(application)
        if application.get("import_path") == ROUTER and config.get("proxy_location", "EveryNode") == "EveryNode":
            yield from _times(application)
    yield from _shares(config)


def _variables(application: Json) -> Iterator[Problem]:
    """Those of the cluster that are set for a part of it."""
    environments = [(place_of(application), application)]
    environments += [
        (f"{place}.ray_actor_options", _mapping(one.get("ray_actor_options")))
        for place, one in deployments_of(application)
    ]
    for place, holder in environments:
        for name in _mapping(_mapping(holder.get("runtime_env")).get("env_vars")):
            if name in NAMES:
                yield Problem(
                    f"{place}.runtime_env.env_vars.{name}",
                    "must be the same in every process of the cluster, or the application refuses to start. Set it on "
                    "every node before Ray starts there: python -m deployments.environment prints all that are needed.",
                )


def _times(router: Json) -> Iterator[Problem]:
    settings = settings_of(router)
    if not isinstance(settings, RouterConfig):
        return
    needed = settings.request_timeout_s + READING_GRACE_S
    values = {name: own()[name] or CLUSTER[name] for name in TIMES}
    for name, value in values.items():
        if value.isdecimal() and int(value) < needed:
            yield Problem(
                f"{place_of(router)}.args.request_timeout_s",
                f"HAProxy would cut the longest answers: {name} is {value}, and must be at least {needed:.0f} here. "
                f"Write at most {int(value) - READING_GRACE_S:.0f}, or set the variable on every node, and for this "
                "check.",
            )


def _updates(application: Json) -> Iterator[Problem]:
    for place, deployment in deployments_of(application):
        surge, share = deployment.get("max_surge_percent", 0), deployment.get("rolling_update_percentage")
        share = ROLLING_UPDATE if share is None else share
        replicas = _fewest(deployment)
        stopped = "the only replica" if replicas == 1 else "all replicas"
        if surge == 0 and isinstance(share, int | float) and max(int(share * replicas), 1) >= replicas:
            yield Problem(
                f"{place}.max_surge_percent",
                f"is 0, so that an update stops {stopped} before another runs: "
                "requests get a 503 until it has started. Write 100, which needs room for both at a time.",
                is_warning=True,
            )


def _fewest(deployment: Json) -> int:
    """How many replicas an update may find, where it finds one."""
    number = _mapping(deployment.get("autoscaling_config")).get("min_replicas", deployment.get("num_replicas"))
    return max(1, number) if isinstance(number, int) else 1


def _shares(config: Json) -> Iterator[Problem]:
    """Parts of a card that do not fit on one; whole cards are for Ray to find."""
    found: dict[str, float] = {}
    for application in applications_of(config):
        for place, deployment in deployments_of(application):
            gpus = _mapping(deployment.get("ray_actor_options")).get("num_gpus")
            if isinstance(gpus, int | float) and 0 < gpus < 1:
                found[f"{place}.ray_actor_options.num_gpus"] = gpus * _fewest(deployment)
    if (total := sum(found.values())) > 1:
        yield Problem(
            next(reversed(found)),
            f"with it, the shares of a GPU add up to {total:.3g}, at the fewest replicas of each: a node with one card "
            "cannot hold all. Write smaller shares, or have a second card.",
            is_warning=True,
        )


def _mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}
