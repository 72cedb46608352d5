"""Every process of a cluster must send requests the same way. What a cluster reports is a substitute here;
tests/deployments/test_cluster_environment.py asks a real one.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest

import deployments.app
import router.app
from deployments.app import CheckedReplica
from deployments.config import ModelConfig
from router.app import Router
from router.config import RouterConfig
from serve_args import cluster_environment
from serve_args.cluster_environment import CLUSTER, NAMES, Values, own, require_same, require_same_on_every_node
from vlm.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray, where these tests are the first to import it

HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
FRONT = "GIGAROUTER_FRONT"


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_the_same_values_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    require_same(own())
    for name, value in CLUSTER.items():
        monkeypatch.setenv(name, value)
    require_same(own())
    require_same(CLUSTER)


@pytest.mark.parametrize("name", NAMES)
def test_each_variable_is_compared(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built_with = own()
    monkeypatch.setenv(name, "other")
    with pytest.raises(ConfigError, match=f"{name} is 'other' instead of not set") as caught:
        require_same(built_with)
    assert caught.value.param == name


def test_the_refusal_names_the_node_every_variable_both_values_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HAPROXY, "1")
    monkeypatch.setenv(FRONT, "{}")
    with pytest.raises(ConfigError) as caught:
        require_same(own(), {HAPROXY: "0"}, "10.0.0.7")
    for part in (
        "On the node 10.0.0.7",
        f"{HAPROXY} is '0' instead of '1'",
        f"{FRONT} is not set instead of '{{}}'",
        "python -m deployments.environment",
        "before Ray starts",
        "docs/security.md",
    ):
        assert part in caught.value.message


def test_every_node_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes: list[tuple[str, Values]] = [("10.0.0.1", own())]
    monkeypatch.setattr(cluster_environment, "_of_every_node", lambda: nodes)
    require_same_on_every_node()
    nodes.append(("10.0.0.2", {**own(), HAPROXY: "1"}))
    with pytest.raises(ConfigError, match=r"10\.0\.0\.2"):
        require_same_on_every_node()


def test_a_node_that_cannot_answer_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may lack this package, have ended since, or take too long; what starts there compares for itself."""
    ray = pytest.importorskip("ray")
    from ray import exceptions

    cannot = [exceptions.GetTimeoutError(), exceptions.NodeDiedError("gone"), exceptions.RaySystemError("no package")]
    said = {f"10.0.0.{number}": answer for number, answer in enumerate([own(), *cannot, {HAPROXY: "1"}])}
    nodes = [{"NodeID": address, "NodeManagerAddress": address, "Alive": True} for address in said]
    dead = {"NodeID": "dead", "NodeManagerAddress": "10.0.0.9", "Alive": False}
    cancelled: list[str] = []

    def get(address: str, timeout: float) -> Any:
        assert timeout == 0
        if isinstance(answer := said[address], Exception):
            raise answer
        return answer

    for name, substitute in {
        "is_initialized": lambda: True,
        "nodes": lambda: [*nodes, dead],
        "wait": lambda *_arguments, **_options: ([], []),
        "get": get,
        "cancel": lambda address, force: cancelled.append(address),
    }.items():
        monkeypatch.setattr(ray, name, substitute)
    monkeypatch.setattr(cluster_environment, "_ask", lambda node_id: node_id)
    with caplog.at_level(logging.WARNING), pytest.raises(ConfigError, match=r"10\.0\.0\.4.*HA_PROXY is '1'"):
        require_same_on_every_node()
    assert cancelled == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert [record.args[0] for record in caplog.records] == cancelled  # type: ignore[index]


def test_where_there_is_no_cluster_nothing_is_asked() -> None:
    require_same_on_every_node()


def test_the_router_is_not_built_where_a_node_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_environment, "_of_every_node", lambda: [("10.0.0.2", {HAPROXY: "1"})])
    with pytest.raises(ConfigError, match=HAPROXY):
        router.app.build({})
    assert router.app.build({"listen": "127.0.0.1:8000"}), "no proxy of any node is in its way"


def test_no_process_starts_with_other_values_than_its_application_was_built_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built_with = own()
    monkeypatch.setenv(HAPROXY, "1")
    with pytest.raises(ConfigError, match=HAPROXY):
        Router(RouterConfig(), built_with)
    with pytest.raises(ConfigError, match=HAPROXY):
        CheckedReplica(ModelConfig.from_args({"checkpoint": "there/is/none"}), built_with)


def test_a_model_is_given_the_values_it_was_built_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HAPROXY, "1")
    bound = deployments.app.build({"checkpoint": "x"})
    assert bound._bound_deployment.init_args[1][HAPROXY] == "1"
