"""The ``args`` of a Serve config's applications, and the models that they name. Imports neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from deployments.check_problem import Problem, place_of
from deployments.config import ModelConfig
from router.config import RouterConfig
from router.ingress import ROUTER, applications_of, routers_of
from router.suggest import did_you_mean
from vlm.errors import ConfigError

Json = Mapping[str, Any]

MODEL = "deployments.app:build"

READERS: Mapping[str, Callable[[Json], RouterConfig | ModelConfig]] = {
    ROUTER: RouterConfig.from_args,
    MODEL: ModelConfig.from_args,
}
"""Reads the ``args`` of an application, by its ``import_path``."""


def args_problems(config: Json) -> Iterator[Problem]:
    """Settings that are wrong, and models that the router names and that are not there."""
    applications = applications_of(config)
    for application in applications:
        read = settings_of(application)
        if isinstance(read, Problem):
            yield read
    models = [str(one.get("name")) for one in applications if one.get("import_path") != ROUTER]
    for router in routers_of(config):
        yield from _unknown_models(f"{place_of(router)}.args", router.get("args"), models)


def settings_of(application: Json) -> RouterConfig | ModelConfig | Problem | None:
    """What the args of an application say; None if it is none of ours."""
    reader = READERS.get(str(application.get("import_path")))
    try:
        return None if reader is None else reader(application.get("args") or {})
    except ConfigError as error:
        return Problem(f"{place_of(application)}.args", error.message)


def _unknown_models(place: str, args: object, models: list[str]) -> Iterator[Problem]:
    for key, name in _named_models(args) if isinstance(args, dict) else ():
        if name not in models:
            yield Problem(
                f"{place}.{key}",
                f"names {name!r}, but there is no application of that name.{did_you_mean(str(name), models)} "
                f"Models in this config: {', '.join(models) or 'none'}.",
            )


def _named_models(args: Json) -> Iterator[tuple[str, object]]:
    """(setting, name); none of a setting that is malformed, which its reader reports."""
    for key, kind in (("required_models", list), ("prices", dict)):
        if isinstance(names := args.get(key), kind):
            yield from ((key, name) for name in names)
    if isinstance(default := args.get("default_model"), str):
        yield "default_model", default
