"""Everything of a Serve config that Ray does not know of. Imports neither Ray nor torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deployments.check_accounts import accounts_problems
from deployments.check_args import MODEL, args_problems, settings_of
from deployments.check_cluster import cluster_problems
from deployments.check_problem import Problem, deployments_of, place_of
from deployments.config import ModelConfig
from router.config import RouterConfig
from router.ingress import ROUTER, applications_of, routers_of
from router.suggest import did_you_mean
from traces.target import is_installed, what_is_missing
from vlm.errors import ConfigError

Json = Mapping[str, Any]

DEPLOYMENT_OF: Mapping[str, str] = {ROUTER: "Router", MODEL: "Replica"}
"""The name of the only deployment of each of our applications, by its import_path."""

RAY_CALLS = 1000
"""Calls of any kind that Ray lets into a replica at a time, health checks among them."""

DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
COMMIT = re.compile("[0-9a-f]{40}")


DEFAULT_ROUTE = "/"
"""What Serve takes where an application names no ``route_prefix``."""


def own_problems(config: Json, *, folders: bool = True) -> list[Problem]:
    """Those that Ray does not know of.

    Args:
        config: The content of a Serve config.
        folders: Whether the checkpoints' folders are to be on this machine, and are looked at.
    """
    found = [
        *_between_applications(config),
        *args_problems(config),
        *cluster_problems(config),
        *accounts_problems(config),
    ]
    for application in applications_of(config):
        if str(application.get("import_path")) in DEPLOYMENT_OF:
            found += _of_application(application, folders)
    return found


def _between_applications(config: Json) -> Iterator[Problem]:
    applications = applications_of(config)
    if not routers_of(config):
        yield Problem("applications", f"none has the import_path {ROUTER}, so that no request reaches a model.")
    for one in applications:
        place, target = place_of(one), str(one.get("import_path"))
        if target not in DEPLOYMENT_OF and (guess := did_you_mean(target, DEPLOYMENT_OF, cutoff=0.8)):
            yield Problem(f"{place}.import_path", f"is {target}.{guess}")
        if target == MODEL and one.get("route_prefix", DEFAULT_ROUTE) is not None:
            yield Problem(f"{place}.route_prefix", "must be null: only the router sends requests to a model.")


def _of_application(application: Json, folders: bool) -> Iterator[Problem]:
    settings, name = settings_of(application), DEPLOYMENT_OF[application["import_path"]]
    if isinstance(settings, RouterConfig) and not is_installed(settings.traces):
        message = f"{what_is_missing(settings.traces)} Here they are not; the nodes may have them."
        yield Problem(f"{place_of(application)}.args.traces", message, is_warning=True)
    if isinstance(settings, ModelConfig):
        yield from _of_device(f"{place_of(application)}.args", settings.device)
        if folders:
            yield from _of_checkpoint(f"{place_of(application)}.args", settings)
    for place, deployment in deployments_of(application):
        if deployment.get("name") != name:
            yield Problem(place, f"there is only one deployment, and its name is {name}.")
        yield from _of_resources(place, deployment)
        if isinstance(settings, ModelConfig):
            yield from _of_model(place, deployment, settings)
        elif isinstance(settings, RouterConfig):
            yield from _of_router(place, deployment, settings)


def _of_device(path: str, device: str) -> Iterator[Problem]:
    if not DEVICE.fullmatch(device):
        hint = did_you_mean(device, ("cpu", "cuda", "auto"))
        yield Problem(f"{path}.device", f"{device!r} is none; write cpu, cuda, cuda:1 and the like, or auto.{hint}")


def _of_checkpoint(path: str, config: ModelConfig) -> Iterator[Problem]:
    try:
        source = config.source
    except ConfigError as error:
        yield Problem(f"{path}.revision", error.message)
        return
    if config.revision is not None:
        if not COMMIT.fullmatch(config.revision):
            yield Problem(f"{path}.revision", "must be the 40 hexadecimal digits of a commit: a branch may change.")
    elif not Path(source).is_dir():
        yield Problem(
            f"{path}.checkpoint",
            f"there is no folder {config.checkpoint!r} on this machine. A checkpoint of the hub needs a revision; "
            "for a folder that only the nodes of the cluster have, use --no-folders.",
        )
    elif not (Path(source) / "config.json").is_file():
        yield Problem(f"{path}.checkpoint", f"the folder {source} has no config.json, so it is no checkpoint.")


def _of_resources(place: str, deployment: Json) -> Iterator[Problem]:
    gpus = _mapping(deployment.get("ray_actor_options")).get("num_gpus")
    if isinstance(gpus, float) and gpus > 1 and not gpus.is_integer():
        yield Problem(f"{place}.ray_actor_options.num_gpus", "above 1 it must be a whole number of cards.")


def _of_model(place: str, deployment: Json, config: ModelConfig) -> Iterator[Problem]:
    gpus = _mapping(deployment.get("ray_actor_options")).get("num_gpus") or 0
    if config.device.startswith("cuda") and gpus == 0:
        yield Problem(
            f"{place}.ray_actor_options.num_gpus", f"must be above 0 for device {config.device}: Ray hides all cards."
        )
    if config.device == "cpu" and gpus:
        yield Problem(f"{place}.ray_actor_options.num_gpus", "reserves a card that device cpu does not use.")
    limit = deployment.get("max_ongoing_requests")
    if isinstance(limit, int) and limit < config.engine.capacity:
        yield Problem(
            f"{place}.max_ongoing_requests",
            f"must be at least max_batch + max_waiting = {config.engine.capacity}, or left out: Serve would hold "
            "requests back that the engine has room for.",
        )


def _of_router(place: str, deployment: Json, config: RouterConfig) -> Iterator[Problem]:
    limit = deployment.get("max_ongoing_requests")
    if isinstance(limit, int) and not config.max_requests < limit < RAY_CALLS:
        yield Problem(
            f"{place}.max_ongoing_requests",
            f"must be above max_requests ({config.max_requests}), so that health checks find a place, and below "
            f"{RAY_CALLS}, which is how many calls Ray lets into a replica.",
        )


def _mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}
