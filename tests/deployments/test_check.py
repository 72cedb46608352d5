"""Every mistake in a Serve config is named with its place, before anything is deployed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.check import check, main
from deployments.check_cluster import TIMES
from deployments.check_problem import Problem
from deployments.local.cluster import StartError, schema_of
from tests.deployments.system import ROOT

CONFIGS = ("serve_config.yaml", "serve_config.local.yaml")
BLIP = "applications.blip-large"
REPLICA = f"{BLIP}.deployments.Replica"
ROUTER = "applications.router"

Change = Callable[[Any], object]


def read(name: str = "serve_config.yaml") -> Any:
    """With a copy for each alias, so that a change of one application is one of it alone."""
    content = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return yaml.load(_without_aliases(content), yaml.SafeLoader)


def _without_aliases(content: Any) -> str:
    dumper = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
    return yaml.dump(content, Dumper=dumper)


def keys(*path: str | int, **values: Any) -> Change:
    """A change that sets ``values`` below ``path``."""

    def change(config: Any) -> None:
        for step in path:
            config = config[step]
        config.update(values)

    return change


APP = ("applications", 1)
DEPLOYED = (*APP, "deployments", 0)
OPTIONS = (*DEPLOYED, "ray_actor_options")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_configs_of_this_repository_have_no_problem(name: str) -> None:
    assert check(read(name)) == []


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        (keys(proxy_locations="x"), "proxy_locations", "Did you mean 'proxy_location'?"),
        (keys("http_options", prot=1), "http_options.prot", "Did you mean 'port'?"),
        (keys(*APP, route_prefixes=None), f"{BLIP}.route_prefixes", "Did you mean 'route_prefix'?"),
        (keys(*DEPLOYED, max_surge_percentage=1), f"{REPLICA}.max_surge_percentage", "Did you mean 'max_surge"),
        (keys(*OPTIONS, num_gpu=1), f"{REPLICA}.ray_actor_options.num_gpu", "Did you mean 'num_gpus'?"),
        (
            keys(*DEPLOYED, "autoscaling_config", min_replica=1),
            f"{REPLICA}.autoscaling_config.min_replica",
            "Did you mean 'min_replicas'?",
        ),
        (
            keys(*DEPLOYED, "autoscaling_config", policy={"policy_function": "deployments.scaling_polcy:WaitingWork"}),
            f"{REPLICA}.autoscaling_config.policy.policy_function",
            "Did you mean 'deployments.scaling_policy:WaitingWork'?",
        ),
        (
            keys(*DEPLOYED, "autoscaling_config", "policy", policy_kwargs={"quite_s": 1}),
            f"{REPLICA}.autoscaling_config.policy.policy_kwargs",
            "did you mean quiet_s?",
        ),
        (
            keys(*DEPLOYED, "autoscaling_config", upscale_delay_s=5),
            f"{REPLICA}.autoscaling_config.upscale_delay_s",
            "must be 0",
        ),
        (keys(*DEPLOYED, autoscaling_config={"min_replicas": 3, "max_replicas": 2}), REPLICA, "max_replicas (2) must"),
        (keys(*DEPLOYED, max_surge_percent="much"), f"{REPLICA}.max_surge_percent", "integer"),
        (keys("applications", 2, name="blip-large"), "applications", "blip-large"),
        (keys(*APP, route_prefix="/"), "", "route prefix"),
        (keys(*APP, route_prefix="/blip"), f"{BLIP}.route_prefix", "must be null"),
        (keys(*APP, import_path="deployments.app:biuld"), f"{BLIP}.import_path", "'deployments.app:build'?"),
        (keys("applications", 0, import_path="other:app"), "applications", "no request reaches a model"),
        (keys(*APP, "args", "engine", max_bacth=33), f"{BLIP}.args", "did you mean engine.max_batch?"),
        (keys("applications", 0, "args", request_timeout=1), f"{ROUTER}.args", "request_timeout_s"),
        (keys("applications", 0, "args", required_models=["blip-larg"]), f"{ROUTER}.args.required_m", "'blip-large'?"),
        (keys("applications", 0, "args", default_model="kosmos"), f"{ROUTER}.args.default_model", "'kosmos-2'?"),
        (keys("applications", 0, "args", prices={"kosmos": "1"}), f"{ROUTER}.args.prices", "'kosmos-2'?"),
        (keys(*APP, "args", revision="main"), f"{BLIP}.args.revision", "40 hexadecimal digits"),
        (keys(*APP, "args", revision=None), f"{BLIP}.args.checkpoint", "needs a revision"),
        (keys(*APP, "args", checkpoint="docs", revision=None), f"{BLIP}.args.checkpoint", "has no config.json"),
        (keys(*APP, "args", checkpoint="miniatures/kosmos-2"), f"{BLIP}.args.revision", "leave out revision"),
        (keys(*DEPLOYED, name="Model"), f"{BLIP}.deployments.Model", "its name is Replica"),
        (keys(*DEPLOYED, max_ongoing_requests=10), f"{REPLICA}.max_ongoing_requests", "at least max_batch + max_wait"),
        (
            keys("applications", 0, "deployments", 0, max_ongoing_requests=700),
            f"{ROUTER}.deployments.Router.max_ongoing_requests",
            "above max_requests (700)",
        ),
        (keys(*OPTIONS, num_gpus=0), f"{REPLICA}.ray_actor_options.num_gpus", "above 0 for device cuda"),
        (keys(*OPTIONS, num_gpus=1.5), f"{REPLICA}.ray_actor_options.num_gpus", "whole number of cards"),
        (keys(*APP, "args", device="cpu"), f"{REPLICA}.ray_actor_options.num_gpus", "does not use"),
        (keys(*APP, "args", device="cdua"), f"{BLIP}.args.device", "'cuda'?"),
        (keys(*APP, "args", device="cuda:x"), f"{BLIP}.args.device", "write cpu, cuda"),
        (
            keys(*APP, runtime_env={"env_vars": {"RAY_SERVE_ENABLE_HA_PROXY": "0"}}),
            f"{BLIP}.runtime_env.env_vars.RAY_SERVE_ENABLE_HA_PROXY",
            "on every node before Ray starts",
        ),
        (
            keys(*OPTIONS, runtime_env={"env_vars": {"RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1"}}),
            f"{REPLICA}.ray_actor_options.runtime_env.env_vars.RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP",
            "the same in every process",
        ),
        (
            keys("applications", 0, "args", request_timeout_s=141),
            f"{ROUTER}.args.request_timeout_s",
            "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S is 150, and must be at least 151 here. Write at most 140",
        ),
        (keys("applications", 0, "args", traces="collector:4318"), f"{ROUTER}.args", "traces must be off, console"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(change: Change, place: str, words: str) -> None:
    config = read()
    change(config)
    found = check(config)
    assert any(one.place.startswith(place) and words in one.message for one in found), found


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        (keys(*DEPLOYED, max_surge_percent=0), f"{REPLICA}.max_surge_percent", "stops the only replica"),
        (
            keys("applications", 0, "deployments", 0, rolling_update_percentage=1.0),
            f"{ROUTER}.deployments.Router.max_surge_percent",
            "stops all replicas before another runs",
        ),
        (
            keys(*OPTIONS, num_gpus=0.765),
            "applications.moondream-2.deployments.Replica.ray_actor_options.num_gpus",
            "add up to 1.1, at the fewest replicas",
        ),
    ],
)
def test_what_works_on_some_clusters_or_at_some_times_is_a_warning(
    change: Change, place: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = read()
    change(config)
    [found] = check(config)
    assert (found.place, found.is_warning) == (place, True)
    assert words in found.message
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    assert main([str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{path}: {place}: warning: ")


def test_what_sends_traces_may_be_missing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.check_applications.is_installed", lambda target: target == "off")
    config = read()
    assert check(config) == []
    config["applications"][0]["args"]["traces"] = "http://collector:4318"
    (found,) = check(config)
    assert (found.place, found.is_warning) == (f"{ROUTER}.args.traces", True)
    assert "pip install 'gigarouter[traces]'" in found.message


def test_times_may_be_longer_where_the_variables_are(monkeypatch: pytest.MonkeyPatch) -> None:
    config = read()
    keys("applications", 0, "args", request_timeout_s=300)(config)
    for name in TIMES:
        monkeypatch.setenv(name, "330")
    assert check(config) == []


def test_all_problems_are_named_at_once() -> None:
    config = read()
    for change in (keys(proxy_locations=1), keys(*APP, "args", "engine", max_bacth=1), keys(*OPTIONS, num_gpus=0)):
        change(config)
    assert [one.place for one in check(config)] == ["proxy_locations", f"{BLIP}.args"]
    assert str(Problem("a.b", "is wrong.")) == "a.b: is wrong."


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"applications": 3},
        {"applications": [1, {"name": 2, "deployments": [3]}]},
        {"applications": [{"name": "router", "import_path": ["router.app:build"]}]},
    ],
)
def test_a_malformed_config_is_a_problem_too(config: Any) -> None:
    assert check(config)


def test_folders_of_other_machines_are_not_looked_for() -> None:
    config = read("serve_config.local.yaml")
    config["applications"][1]["args"]["checkpoint"] = "/models/only/there"
    assert [one.place for one in check(config)] == [f"{BLIP}.args.checkpoint"]
    assert check(config, folders=False) == []


def test_make_serve_refuses_what_ray_would_ignore() -> None:
    config = read("serve_config.local.yaml")
    keys(*OPTIONS, num_cpu=1)(config)
    with pytest.raises(StartError, match=rf"cannot work:\n{REPLICA}.ray_actor_options.num_cpu: .*'num_cpus'\?"):
        schema_of(config)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**read(), "proxy_locations": 1}), encoding="utf-8")
    assert main([str(path)]) == 1
    assert capsys.readouterr().out.startswith(f"{path}: proxy_locations: is not a known key")
    assert main([str(ROOT / "serve_config.yaml")]) == 0
    assert main([str(tmp_path / "none.yaml")]) == 2
    assert "no config file" in capsys.readouterr().err


def test_it_needs_no_torch_and_no_cluster() -> None:
    code = "import sys, deployments.check as c; c.main(['serve_config.yaml']); import ray"
    checked = f"{code}; assert 'torch' not in sys.modules; assert not ray.is_initialized()"
    subprocess.run([sys.executable, "-W", "ignore", "-c", checked], check=True, cwd=ROOT)
