"""The policy as Serve calls it, with contexts of Serve's own class."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.scaling_policy import POLICY, WaitingWork, mistakes, report
from vlm.engine.config import EngineStats

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own, while it is imported
    from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
    from ray.serve.autoscaling_policy import _apply_autoscaling_config
    from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

pytestmark = pytest.mark.filterwarnings("ignore")  # metrics_interval_s is deprecated, and nothing else sets it

STATS = EngineStats(4, 2, 4, 10, 5, 0, 0, 0, used_places=6, total_places=12, queue_s=1.5)
WORKS: Mapping[str, Any] = {
    "policy": {"policy_function": POLICY},
    "upscale_delay_s": 0,
    "downscale_delay_s": 0,
    "metrics_interval_s": 1,
    "look_back_period_s": 2,
}


def context(
    reports: Sequence[Mapping[str, float]] = (), *, running: int | None = None, target: int = 1, **fields: Any
) -> AutoscalingContext:
    """``reports``: what each replica has said, for some seconds."""
    deployment = DeploymentID("Replica", "m")
    replicas = [ReplicaID(str(number), deployment) for number in range(len(reports))]
    metrics: dict[str, dict[ReplicaID, list[TimeStampedValue]]] = {}
    for replica, said in zip(replicas, reports, strict=True):
        for name, value in said.items():
            metrics.setdefault(name, {})[replica] = [TimeStampedValue(at, value) for at in (1.0, 2.0)]
    made: dict[str, Any] = {
        "deployment_id": deployment,
        "deployment_name": "Replica",
        "app_name": "m",
        "current_num_replicas": len(reports) if running is None else running,
        "target_num_replicas": target,
        "running_replicas": replicas,
        "total_num_requests": 0.0,
        "total_queued_requests": 0.0,
        "aggregated_metrics": None,
        "raw_metrics": metrics,
        "capacity_adjusted_min_replicas": 0,
        "capacity_adjusted_max_replicas": 8,
        "policy_state": {},
        "last_scale_up_time": None,
        "last_scale_down_time": None,
        "current_time": 1000.0,
        "config": AutoscalingConfig(**WORKS),
    }
    return AutoscalingContext(**made | fields)


def test_serve_finds_the_policy_and_applies_nothing_of_its_own() -> None:
    policy = AutoscalingPolicy(policy_function=POLICY, policy_kwargs={"settle_s": 0, "target_queue_s": 1})
    found = policy.get_policy()
    wrapped = _apply_autoscaling_config(found(**policy.policy_kwargs))
    assert wrapped(context([report(STATS, 1)]))[0] == 3  # 1 / 0.8 + 1.5


def test_a_queue_that_becomes_shorter_is_seen() -> None:
    policy = WaitingWork(settle_s=0.0, start_s=10.0)
    before, now = report(STATS, 1), report(replace(STATS, queue_s=0.75), 1)
    seen = context([before])
    for name, value in now.items():
        [points] = seen.raw_metrics[name].values()
        points[-1] = TimeStampedValue(2.0, value)
    assert policy(seen)[0] == 1  # 0.75 s less in a second, so a quarter of it is new


def test_from_zero_serve_starts_one_however_many_wait() -> None:
    wrapped = _apply_autoscaling_config(WaitingWork())
    herd = context(running=0, target=0, total_num_requests=500.0, total_queued_requests=500.0)
    assert wrapped(herd)[0] == 1


def test_what_serve_holds_back_is_work_too() -> None:
    policy = WaitingWork(settle_s=0.0)
    half = report(EngineStats(2, 0, 4, 10, 5, 0, 0, 0, used_places=2, total_places=12), 1)
    assert policy(context([half, half], target=2))[0] == 2
    assert policy(context([half, half], target=2, total_queued_requests=6.0))[0] == 4  # 1 + 6 / 4, over 0.8


def test_replicas_that_do_not_report_change_nothing() -> None:
    policy = WaitingWork(settle_s=0.0, quiet_s=5.0, idle_s=5.0)
    assert {policy(context([{}] * 3, target=3, current_time=1000.0 + second))[0] for second in range(60)} == {3}


def test_requests_between_two_reports_keep_a_model_awake() -> None:
    policy = WaitingWork(idle_s=10.0)
    idle = EngineStats(0, 0, 4, 10, 0, 0, 0, 0, total_places=12)
    for second in range(30):
        assert policy(context([report(idle, second // 5)], current_time=1000.0 + second))[0] == 1
    found = [policy(context([report(idle, 6)], current_time=1030.0 + second))[0] for second in range(12)]
    assert (found[0], found[-1]) == (1, 0)


@pytest.mark.parametrize(
    "reports", [{"queue_s": float("nan")}, {"queue_s": float("inf")}, {"places_held": "many"}], ids=str
)
def test_what_cannot_be_understood_changes_nothing_and_is_said_once(
    reports: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What a policy raises ends the step of Serve's controller, in which it looks after all applications."""
    policy = WaitingWork()
    for _ in range(3):
        assert policy(context([report(STATS, 1) | reports], target=3)) == (3, {})
    assert [one.getMessage().partition(": ")[0] for one in caplog.records] == [f"{POLICY} keeps 3 replicas"]
    policy(context([report(STATS, 1)]))
    policy(context([report(STATS, 1) | reports]))
    assert len(caplog.records) == 2


def test_another_release_of_serve_may_have_other_contexts(caplog: pytest.LogCaptureFixture) -> None:
    assert WaitingWork()(SimpleNamespace(target_num_replicas=2)) == (2, {})
    assert "AttributeError" in caplog.text


def test_wrong_settings_do_not_stop_the_controller(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "ray.serve"):
        policy = WaitingWork(quite_s=1.0)
    assert policy(context([report(STATS, 1)]))[0] == 1
    if caplog.records:  # where nothing has cut ray.serve off from the root
        assert "did you mean quiet_s?" in caplog.text


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, []),
        ({"policy": {"policy_function": "elsewhere:policy"}, "upscale_delay_s": 5}, []),
        ({"policy": {"policy_function": POLICY, "policy_kwargs": {"quite_s": 1}}}, ["policy.policy_kwargs"]),
        ({"upscale_delay_s": 5}, ["upscale_delay_s"]),
        ({"downscale_delay_s": 300}, ["downscale_delay_s"]),
        ({"upscaling_factor": 2.0}, ["upscaling_factor"]),
        ({"downscaling_factor": 0.5}, ["upscaling_factor"]),
        ({"metrics_interval_s": 6, "look_back_period_s": 8}, ["metrics_interval_s"]),
        ({"look_back_period_s": 1}, ["look_back_period_s"]),
        ({"look_back_period_s": 30}, ["look_back_period_s"]),
        ({"look_back_period_s": "2"}, []),  # Ray says so
    ],
)
def test_what_keeps_the_policy_from_working_is_named(changed: dict[str, Any], found: list[str]) -> None:
    assert [key for key, _ in mistakes({**WORKS, **changed})] == found


def test_serve_s_own_defaults_keep_it_from_working() -> None:
    keys = [key for key, _ in mistakes({"policy": {"policy_function": POLICY}})]
    assert keys == ["upscale_delay_s", "downscale_delay_s", "metrics_interval_s", "look_back_period_s"]
