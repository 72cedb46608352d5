"""A Ray cluster whose processes do not all have the same variables is refused, in words."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator

import pytest

from deployments.app import CheckedReplica
from deployments.config import ModelConfig
from router.app import build
from serve_args.cluster_environment import own
from tests.router.cluster import WITHOUT_TOKEN
from vlm.errors import ConfigError

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore"),  # Ray's own warnings are not ours to fix
]

HAPROXY, LOOP = "RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two nodes on this machine, of which the second has a variable that the first has not."""
    ray = pytest.importorskip("ray")
    from ray import serve
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="gr-", dir="/tmp") as folder:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_raylet_start_wait_time_s", "120")
        patch.setenv(LOOP, "0")
        patch.delenv(HAPROXY, raising=False)
        nodes = Cluster(True, True, head_node_args={"num_cpus": 1, "include_dashboard": False, "temp_dir": folder})
        try:
            nodes.add_node(num_cpus=1, env_vars={HAPROXY: "1"})
            serve.start(proxy_location="Disabled")
            yield
        finally:
            serve.shutdown()
            ray.shutdown()
            nodes.shutdown()


@pytest.mark.usefixtures("cluster")
def test_the_router_is_not_built_while_a_node_differs() -> None:
    with pytest.raises(ConfigError, match=f"{HAPROXY} is '1' instead of not set.*before Ray starts"):
        build(WITHOUT_TOKEN)


@pytest.mark.usefixtures("cluster")
def test_a_replica_that_finds_other_values_says_so_as_the_application_s_message() -> None:
    from ray import serve

    deployment = serve.deployment(
        name="Replica",
        max_constructor_retry_count=1,
        ray_actor_options={"num_cpus": 0, "runtime_env": {"env_vars": {LOOP: "1"}}},
    )(CheckedReplica)
    model = deployment.bind(ModelConfig.from_args({"checkpoint": "there/is/none"}), own())
    handle_or_error = _deploy(model)
    assert f"{LOOP} is '1' instead of '0'" in handle_or_error
    serve.delete("model")


def _deploy(model: object) -> str:
    """What Serve says of an application that cannot start."""
    from ray import serve

    serve._run(model, name="model", route_prefix=None, _blocking=False)
    deadline = time.monotonic() + 60
    while (found := serve.status().applications["model"]).status != "DEPLOY_FAILED":
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return "\n".join([found.message, *(one.message for one in found.deployments.values())])
