"""A Serve config file, read and checked before anything is started.

Imports neither Ray nor torch: what is checked against Ray's own schema is in :mod:`deployments.check_schema`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from accounts import environment
from deployments.check_applications import DEFAULT_ROUTE, own_problems
from deployments.check_args import READERS
from deployments.check_problem import Problem, deployments_of
from router.config import ENVIRONMENT, TEMPORARY_FILES
from router.ingress import ROUTER, applications_of, routers_of
from serve_args.cluster_auth import SETTING
from vlm.errors import ConfigError

ACCOUNTS = ("database_url", "redis_url", "outbox_folder")
"""Settings of the router that say where accounts are kept."""


def checked(path: Path) -> dict[str, Any]:
    """The content of a Serve config in which :mod:`deployments.check` finds nothing without Ray but warnings.

    Raises:
        ConfigError: As for :func:`without_problems`.
    """
    return without_problems(path, own_problems)


def without_problems(path: Path, check: Callable[[Mapping[str, Any]], Iterable[Problem]]) -> dict[str, Any]:
    """The content of a Serve config in which ``check`` finds nothing but warnings.

    Raises:
        ConfigError: It cannot be read, or something would go wrong; the message has a line on each.
    """
    config = parse(path)
    if problems := [one for one in check(config) if not one.is_warning]:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    return config


def with_folder(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The config with ``folder`` for the files that it wants to be kept as long as the system runs."""
    for args in (one["args"] for one in routers_of(config) if isinstance(one.get("args"), dict)):
        if args.get("files_url") == TEMPORARY_FILES:
            args["files_url"] = str(folder)
    return config


def refuse_missing_variables(config: Mapping[str, Any]) -> None:
    """A router would tell of it half a minute later, several times, among the lines of Ray.

    Raises:
        ConfigError: The config takes a URL from the environment, where there is none.
    """
    found = {"database_url": environment.database_url(), "redis_url": environment.redis_url()}
    variables = {"database_url": environment.DATABASE_URL, "redis_url": environment.REDIS_URL}
    for router in routers_of(config):
        for name, url in found.items():
            if (router.get("args") or {}).get(name) == ENVIRONMENT and not url:
                raise ConfigError(f"{variables[name]} is not set, from which the config takes its {name}.", name)


def refuse_own_database(config: Mapping[str, Any]) -> None:
    """Two places for accounts would be one too many: keys would be made in the one and looked for in the other.

    Raises:
        ConfigError: The config says itself where accounts are, or that nobody needs a key.
    """
    for router in routers_of(config):
        for name in ("database_url", "allow_without_keys"):
            if (router.get("args") or {}).get(name):
                raise ConfigError(f"The config has {name} already: leave --accounts out, or {name}.", "accounts")


def with_database(config: dict[str, Any], url: str) -> dict[str, Any]:
    """The config with accounts at ``url``."""
    for router in routers_of(config):
        router["args"] = {**(router.get("args") or {}), "database_url": url}
    return config


def without_proxy(config: Mapping[str, Any], host: str, port: int) -> dict[str, Any]:
    """The same system with a router that listens at ``host`` and ``port`` itself, and without Serve's proxy.

    Unchanged where a proxy has something to do: to spread requests over several routers, or to serve other routes.
    """
    applications = applications_of(config)
    routed = [one for one in applications if one.get("route_prefix", DEFAULT_ROUTE) is not None]
    if len(routed) != 1 or routed[0].get("import_path") != ROUTER or _is_scaled(routed[0]):
        return dict(config)
    args = {"listen": f"{host}:{port}", **(routed[0].get("args") or {})}
    listening = {**routed[0], "route_prefix": None, "args": args}
    others = [listening if one is routed[0] else one for one in applications]
    return {**config, "proxy_location": "Disabled", "applications": others}


def without_accounts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same system without accounts, for where nobody else reaches it: it needs no database and asks for no keys."""
    applications = [
        {**one, "args": {**_without(one.get("args") or {}, ACCOUNTS), "allow_without_keys": True}}
        if one.get("import_path") == ROUTER
        else one
        for one in applications_of(config)
    ]
    return {**config, "applications": applications}


def _without(args: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in args.items() if name not in names}


def _is_scaled(application: Mapping[str, Any]) -> bool:
    """Whether there may be more than one replica."""
    return any(
        one.get("autoscaling_config") is not None or one.get("num_replicas", 1) not in (1, None)
        for _, one in deployments_of(application)
    )


def needing_token(config: Mapping[str, Any]) -> list[str]:
    """Names of the applications that will not start on a cluster that asks for no token."""
    return [
        str(one.get("name"))
        for one in applications_of(config)
        if str(one.get("import_path")) in READERS and (one.get("args") or {}).get(SETTING) is not True
    ]


def parse(path: Path) -> dict[str, Any]:
    """The content of the file, which may be wrong.

    Raises:
        ConfigError: It cannot be read or is not a mapping in YAML.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"There is no config file {path}.") from None
    except OSError as error:
        raise ConfigError(f"The config file {path} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"The config file {path} is not valid YAML: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"The config file {path} must hold a mapping with the key 'applications'.")
    return config
