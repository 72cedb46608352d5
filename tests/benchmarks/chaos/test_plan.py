"""What is deployed has the shape of production's config, and each change changes one thing."""

from __future__ import annotations

import pytest

from benchmarks.chaos import plan
from benchmarks.chaos.__main__ import ADDED, MODELS
from deployments.check import check

CONFIG = plan.config_of(list(MODELS))


def test_nothing_is_wrong_with_any_config_but_the_one_with_the_typo() -> None:
    added = plan.with_model(CONFIG, ADDED)
    updated = plan.with_update(plan.with_router_update(added), MODELS[0])
    assert [check(config) for config in (CONFIG, added, updated, plan.without(updated, ADDED))] == [[]] * 4
    [problem] = check(plan.with_typo(CONFIG, MODELS[1]))
    assert "max_bacth" in str(problem)


def test_all_applications_have_replicas_on_different_nodes() -> None:
    for application in plan.with_model(CONFIG, ADDED)["applications"]:
        [deployment] = application["deployments"]
        assert (deployment["num_replicas"], deployment["max_replicas_per_node"]) == (2, 1)
        assert "num_gpus" not in deployment["ray_actor_options"]


@pytest.mark.parametrize("name", [plan.ROUTER, MODELS[0]])
def test_an_update_is_of_one_application(name: str) -> None:
    updated = plan.with_router_update(CONFIG) if name == plan.ROUTER else plan.with_update(CONFIG, name)
    pairs = zip(CONFIG["applications"], updated["applications"], strict=True)
    assert [one["name"] for one, other in pairs if one != other] == [name]


def test_a_model_is_added_and_removed_again() -> None:
    added = plan.with_model(CONFIG, ADDED)
    assert plan.application(added, ADDED)["args"]["checkpoint"] == f"miniatures/{ADDED}"
    assert plan.without(added, ADDED) == CONFIG
    assert plan.application(plan.with_model(CONFIG, "a-new-one"), "a-new-one")["name"] == "a-new-one"
