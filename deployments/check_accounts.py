"""What a Serve config says of accounts: where they are kept, who is let in without a key, prices and limits.

Imports no Ray, and opens no database: what the URLs of the nodes' environment name is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from accounts.types import EVERY_MODEL
from deployments.check_args import settings_of
from deployments.check_problem import Problem, deployments_of, place_of
from router.config import RouterConfig
from router.ingress import ROUTER, applications_of, routers_of
from router.suggest import did_you_mean
from serve_args.open_address import is_loopback
from vlm.models.cards import cards

Json = Mapping[str, Any]

SQLITE = "sqlite:"
WITHOUT_EFFECT = ("redis_url", "outbox_folder", "free_credit", "key_limits")
"""Settings that say nothing where there are no accounts."""
EVERYWHERE = "0.0.0.0"  # noqa: S104  what Serve takes where a config names no host


def accounts_problems(config: Json) -> Iterator[Problem]:
    """What holds wherever the system runs."""
    models = [str(one.get("name")) for one in applications_of(config) if one.get("import_path") != ROUTER]
    for application, settings in _routers(config):
        place = f"{place_of(application)}.args"
        yield from _task_prices(place, settings)
        yield from _limits(place, settings, models)
        if settings.database_url is None:
            yield from _useless(place, settings)
            continue
        yield from _database(place, settings)
        yield from _several_routers(place, settings, application)
        yield from _unpriced(place, settings, models)


def keys_problems(config: Json) -> Iterator[Problem]:
    """A router that would answer whoever reaches it: it refuses to start, except where nobody else can."""
    proxy = str(_mapping(config.get("http_options")).get("host", EVERYWHERE))
    for application, settings in _routers(config):
        host = settings.listen_address[0] if settings.listen else proxy
        if settings.database_url is None and not settings.allow_without_keys and not is_loopback(host):
            yield Problem(
                f"{place_of(application)}.args.database_url",
                f"is missing, so that no keys are asked for, and {host} is reached from other machines: the router "
                "refuses to start. Name a database (docs/accounts.md), or write allow_without_keys: true where a "
                "gateway before it asks for keys.",
            )


def _routers(config: Json) -> Iterator[tuple[Json, RouterConfig]]:
    for one in routers_of(config):
        if isinstance(settings := settings_of(one), RouterConfig):
            yield one, settings


def _useless(place: str, settings: RouterConfig) -> Iterator[Problem]:
    for name in WITHOUT_EFFECT:
        if getattr(settings, name):
            yield Problem(f"{place}.{name}", "has no effect without database_url.", is_warning=True)


def _database(place: str, settings: RouterConfig) -> Iterator[Problem]:
    if settings.allow_without_keys:
        yield Problem(
            f"{place}.allow_without_keys",
            "contradicts database_url, with which every request needs a key. Take one of the two out.",
        )
    if settings.outbox_folder is not None and not settings.outbox_folder.startswith("/"):
        yield Problem(f"{place}.outbox_folder", "must begin with /: processes of Ray have folders of their own.")


def _several_routers(place: str, settings: RouterConfig, application: Json) -> Iterator[Problem]:
    most, on_one_node = _replicas(application)
    if most == 1:
        return
    if settings.redis_url is None:
        yield Problem(
            f"{place}.redis_url",
            f"is missing, so that each router counts the limits of keys by itself, and {_named(most)} let in as many "
            "times as much. Budgets hold all the same. Name a Redis or Valkey.",
            is_warning=True,
        )
    if str(settings.database_url).startswith(SQLITE):
        several = on_one_node < most
        yield Problem(
            f"{place}.database_url",
            f"is a file of one machine, and {_named(most)} are on several. Name a PostgreSQL."
            if several
            else f"is a file of one machine, so that {_named(most)} must be on one node. With more nodes, name a "
            "PostgreSQL.",
            is_warning=not several,
        )


def _replicas(application: Json) -> tuple[float, float]:
    """(how many replicas there may be, how many of them on one node)."""
    most, on_one_node = 1.0, float("inf")
    for _, one in deployments_of(application):
        scaling = one.get("autoscaling_config")
        number = _mapping(scaling).get("max_replicas", 1) if scaling else one.get("num_replicas") or 1
        most = max(most, float(number) if isinstance(number, int) else float("inf"))  # "auto" has no number
        if isinstance(limit := one.get("max_replicas_per_node"), int):
            on_one_node = limit
    return most, on_one_node


def _named(most: float) -> str:
    return "several routers" if most == float("inf") else f"{most:.0f} routers"


def _unpriced(place: str, settings: RouterConfig, models: list[str]) -> Iterator[Problem]:
    for name in models:
        if name not in settings.prices:
            yield Problem(f"{place}.prices", f"has none of {name}, which then costs nothing.", is_warning=True)


def _task_prices(place: str, settings: RouterConfig) -> Iterator[Problem]:
    for model, prices in settings.price_list.models.items():
        known = [task.name for task in cards()[model].tasks] if model in cards() else []
        for task in prices.tasks:
            if known and task not in known:
                hint = did_you_mean(task, known)
                yield Problem(f"{place}.prices.{model}.tasks.{task}", f"is no task of {model}.{hint}")


def _limits(place: str, settings: RouterConfig, models: list[str]) -> Iterator[Problem]:
    for name in settings.key_limits:
        if name not in (EVERY_MODEL, *models):
            hint = did_you_mean(name, models)
            yield Problem(f"{place}.key_limits", f"names {name!r}, but there is no application of that name.{hint}")


def _mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}
