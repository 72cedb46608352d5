"""What is deployed: production's config with miniatures, and the changes of it. Knows neither Ray nor processes."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import yaml

from benchmarks.http.servers import ROOT
from deployments.local.serve_config import without_accounts

CONFIG = ROOT / "serve_config.yaml"
ROUTER = "router"
REPLICAS = 2
"""Of each model and of the router, each on a node of its own."""
ENGINE = {
    "max_batch": 8, "max_waiting": 32, "cache_bytes": 33_554_432, "decode_processes": 0, "prepare_threads": 1,
}  # fmt: skip
"""Of a miniature: small, so that many replicas start quickly on few cores."""

Config = dict[str, Any]


def config_of(models: list[str]) -> Config:
    """Production's config with these models alone, as miniatures on the CPU."""
    config = _production()
    config["applications"] = [_router(config, models), *(_model(config, name) for name in models)]
    return config


def with_update(config: Config, model: str) -> Config:
    """The config with another setting of this model."""
    return _changed(config, model, "engine", {**_args(config, model)["engine"], "max_waiting": 31})


def with_router_update(config: Config) -> Config:
    """The config with another setting of the router."""
    return _changed(config, ROUTER, "request_timeout_s", _args(config, ROUTER)["request_timeout_s"] + 1)


def with_typo(config: Config, model: str) -> Config:
    """The config with a setting of this model that does not exist."""
    return _changed(config, model, "engine", {**_args(config, model)["engine"], "max_bacth": 9})


def with_model(config: Config, model: str) -> Config:
    """The config with one more model."""
    return config | {"applications": [*config["applications"], _model(_production(), model)]}


def without(config: Config, model: str) -> Config:
    """The config without this model."""
    return config | {"applications": [one for one in config["applications"] if one["name"] != model]}


def application(config: Config, name: str) -> Config:
    """The application of this name."""
    found: list[Config] = [one for one in config["applications"] if one["name"] == name]
    return found[0]


def _production() -> Config:
    config: Config = yaml.safe_load(CONFIG.read_text("utf-8"))
    return without_accounts(config)


def _router(config: Config, models: list[str]) -> Config:
    router = deepcopy(application(config, ROUTER))
    router["args"]["required_models"] = models
    del router["args"]["prices"]
    return router | {"deployments": [_on_each_node(router["deployments"][0])]}


def _model(config: Config, name: str) -> Config:
    """An entry of production's with the bundled checkpoint; one that production does not have is like the first."""
    _router_entry, *entries = config["applications"]
    entry: Config = deepcopy(next((one for one in entries if one["name"] == name), entries[0]))
    checkpoint = f"miniatures/{name}"
    args = {"checkpoint": checkpoint, "device": "cpu", "dtype": "float32", "threads": 1, "engine": ENGINE}
    return entry | {"name": name, "args": args, "deployments": [_on_each_node(entry["deployments"][0])]}


def _on_each_node(deployment: Config) -> Config:
    """A fixed number of replicas on different nodes. One more finds no node, so that an update stops one first."""
    kept = {key: value for key, value in deployment.items() if key != "autoscaling_config"}
    fixed = {"num_replicas": REPLICAS, "max_replicas_per_node": 1, "max_surge_percent": 0}
    return kept | fixed | {"ray_actor_options": {"num_cpus": 0.1}}


def _args(config: Config, name: str) -> Config:
    args: Config = application(config, name)["args"]
    return args


def _changed(config: Config, name: str, key: str, value: object) -> Config:
    changed = deepcopy(config)
    _args(changed, name)[key] = value
    return changed
