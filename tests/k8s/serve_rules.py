"""The Serve config in the RayService, and how it goes with the Pods: variables, times, and room for every replica."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from deployments.check import check
from deployments.check_args import MODEL
from deployments.environment import variables
from router.config import RouterConfig
from router.ingress import ROUTER
from tests.k8s.objects import Object, Objects, Pod, cluster, env_of, of_kind, ray_groups, ray_pods, ray_service
from vlm.errors import ConfigError

DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
GRACE_BEYOND_DRAIN_S = 30
"""Seconds that a Pod has for stopping Ray after it has drained, before Kubernetes kills it."""

UNITS = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
GPU = "nvidia.com/gpu"


def quantity(text: object) -> float:
    """A Kubernetes quantity as a number."""
    value = str(text)
    unit = next((one for one in UNITS if value.endswith(one)), "")
    return float(value.removesuffix(unit)) * UNITS.get(unit, 1)


def serve_config(objects: Objects) -> Object:
    """What the RayService deploys."""
    return _read(ray_service(objects)["spec"]["serveConfigV2"])


@cache
def _read(text: str) -> Object:
    return dict(yaml.safe_load(text))


def router_settings(objects: Objects) -> RouterConfig:
    """The settings of the router; the defaults where they cannot be read, which the check of the config reports."""
    routers = [one for one in serve_config(objects)["applications"] if one["import_path"] == ROUTER]
    args = (routers[0].get("args") if routers else None) or {}
    try:
        return RouterConfig.from_args(args)
    except ConfigError:
        return RouterConfig()


@cache
def _faults_of(text: str) -> tuple[str, ...]:
    return tuple(str(problem) for problem in check(_read(text), folders=False))


def config(objects: Objects) -> Iterator[str]:
    """What `python -m deployments.check` finds, and what it cannot know: that KubeRay runs it."""
    text = ray_service(objects)["spec"].get("serveConfigV2")
    if not text:
        yield "RayService/gigarouter serveConfigV2: is missing"
        return
    yield from (f"RayService/gigarouter serveConfigV2 {fault}" for fault in _faults_of(text))
    found = _read(text)
    if found.get("proxy_location") != "EveryNode":
        yield "RayService/gigarouter serveConfigV2 proxy_location: is not EveryNode, so that no worker is ever ready"
    if (found.get("http_options") or {}).get("host") != "0.0.0.0":
        yield "RayService/gigarouter serveConfigV2 http_options.host: is not 0.0.0.0, so that nobody reaches the API"
    if (found.get("http_options") or {}).get("port") != 8000:
        yield "RayService/gigarouter serveConfigV2 http_options.port: is not 8000, which the Pods open"
    for one in found["applications"]:
        wanted = "/" if one["import_path"] == ROUTER else None
        if one.get("route_prefix", "/") != wanted:
            yield f"RayService/gigarouter serveConfigV2 {one['name']}: route_prefix is not {wanted or 'null'}"
        if (one.get("runtime_env") or {}).get("working_dir"):
            yield f"RayService/gigarouter serveConfigV2 {one['name']}: fetches its code when it starts"
        for deployment in one["deployments"]:
            if deployment.get("max_surge_percent", 0) == 0 and _least(deployment) < 2:
                yield f"RayService/gigarouter serveConfigV2 {one['name']}: its only replica stops before the next one"


def environment(objects: Objects) -> Iterator[str]:
    """Head and workers have the same variables, those of the transport as the Serve config wants them."""
    maps = {one["metadata"]["name"]: one["data"] for one in of_kind(objects, "ConfigMap")}
    try:
        wanted = _variables_of(ray_service(objects)["spec"]["serveConfigV2"])
    except ConfigError:  # which the check of the config reports
        wanted = {}
    first: dict[str, Any] | None = None
    for pod in ray_pods(objects):
        found = _all_env(pod, maps)
        first = found if first is None else first
        for name, value in wanted.items():
            if found.get(name) != value:
                yield f"{pod.place}: {name} is {found.get(name)!r}, and the Serve config wants {value!r}"
        for name in sorted(found.keys() | first.keys()):
            if found.get(name) != first.get(name):
                yield f"{pod.place}: {name} is {found.get(name)!r}, and {first.get(name)!r} on the head"
        if not any((one.get("configMapRef") or {}).get("name") in maps for one in _main(pod).get("envFrom") or []):
            yield f"{pod.place}: does not take the variables of the transport from their ConfigMap"


@cache
def _variables_of(text: str) -> dict[str, str]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "serve_config.yaml"
        path.write_text(text, "utf-8")
        return dict(variables(path))


def _main(pod: Pod) -> Object:
    found: Object = pod.spec["containers"][0]
    return found


def _all_env(pod: Pod, maps: dict[str, dict[str, str]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for source in _main(pod).get("envFrom") or []:
        found.update(maps.get((source.get("configMapRef") or {}).get("name", ""), {}))
    return {**found, **env_of(_main(pod))}


def times(objects: Objects) -> Iterator[str]:
    """Each wait is longer than what it waits for."""
    longest = router_settings(objects).request_timeout_s
    for pod in ray_pods(objects):
        drain = float(env_of(_main(pod)).get(DRAIN, 30))
        if drain < longest:
            yield f"{pod.place}: {DRAIN} is {drain:g}, and a request may take {longest:g} s"
        grace = pod.spec.get("terminationGracePeriodSeconds", 30)
        if grace < drain + GRACE_BEYOND_DRAIN_S:
            yield f"{pod.place}: terminationGracePeriodSeconds {grace} ends before Ray has drained and stopped"
        if "preStop" in (_main(pod).get("lifecycle") or {}):
            yield f"{pod.place}: preStop stops Ray before it has drained"
    if ray_service(objects)["spec"].get("rayClusterDeletionDelaySeconds", 60) <= longest:
        yield "RayService/gigarouter rayClusterDeletionDelaySeconds: the old cluster goes before its requests end"
    for one in of_kind(objects, "Ingress"):
        patience = one["metadata"]["annotations"].get("nginx.ingress.kubernetes.io/proxy-read-timeout", "60")
        if float(patience) <= longest:
            yield f"Ingress/{one['metadata']['name']}: proxy-read-timeout {patience} ends before a request does"


def versions(objects: Objects) -> Iterator[str]:
    """The Ray that the operator is told of is the one in the image."""
    found, locked = str(cluster(objects).get("rayVersion")), locked_ray()
    if found != locked:
        yield f"RayService/gigarouter rayVersion: is {found}, and requirements/run.lock has {locked}"


@cache
def locked_ray() -> str:
    """The version of Ray in the lock."""
    lock = (Path(__file__).parents[2] / "requirements" / "run.lock").read_text("utf-8")
    return next(line.split("==")[1].split()[0] for line in lock.splitlines() if line.startswith("ray=="))


@dataclass(slots=True)
class RayNode:
    """What Ray may still place on a Pod."""

    group: str
    cpus: float
    gpus: float
    routers: int = 0


def room(objects: Objects) -> Iterator[str]:
    """The fewest replicas of every application fit on the fewest Pods, and so does a new version of any one model."""
    nodes = _nodes(objects)
    wanted = [(one, deployment) for one in serve_config(objects)["applications"] for deployment in one["deployments"]]
    wanted.sort(key=lambda pair: -_gpus(pair[1]))
    for one, deployment in wanted:
        for _ in range(_least(deployment)):
            if not _place(nodes, one, deployment):
                yield f"RayService/gigarouter serveConfigV2 {one['name']}: no Pod has room for its {_needs(deployment)}"
    for one, deployment in wanted:
        if deployment.get("max_surge_percent") and not _place([_copy(node) for node in nodes], one, deployment):
            yield (
                f"RayService/gigarouter serveConfigV2 {one['name']}: no Pod has room for the {_needs(deployment)} "
                "of a new version beside the old one"
            )


def _nodes(objects: Objects) -> list[RayNode]:
    nodes = []
    for _, group in list(ray_groups(objects))[1:]:
        found = group["template"]["spec"]["containers"][0]["resources"]
        cpus = math.ceil(quantity(found.get("limits", {}).get("cpu", found["requests"].get("cpu", 0))))
        gpus = quantity(found.get("limits", {}).get(GPU, 0))
        nodes += [RayNode(group["groupName"], cpus, gpus) for _ in range(group["minReplicas"])]
    return nodes


def _copy(node: RayNode) -> RayNode:
    return RayNode(node.group, node.cpus, node.gpus, node.routers)


def _place(nodes: list[RayNode], application: Object, deployment: Object) -> bool:
    cpus, gpus = _cpus(deployment), _gpus(deployment)
    is_router = application["import_path"] != MODEL
    most = deployment.get("max_replicas_per_node") or math.inf
    for node in nodes:
        if node.cpus + 1e-9 >= cpus and node.gpus + 1e-9 >= gpus and (not is_router or node.routers < most):
            node.cpus, node.gpus = node.cpus - cpus, node.gpus - gpus
            node.routers += is_router
            return True
    return False


def _least(deployment: Object) -> int:
    scaling = deployment.get("autoscaling_config")
    return int(scaling.get("min_replicas", 1) if scaling else deployment.get("num_replicas", 1))


def _cpus(deployment: Object) -> float:
    return float((deployment.get("ray_actor_options") or {}).get("num_cpus", 1))


def _gpus(deployment: Object) -> float:
    return float((deployment.get("ray_actor_options") or {}).get("num_gpus", 0))


def _needs(deployment: Object) -> str:
    return f"{_cpus(deployment):g} CPUs and {_gpus(deployment):g} GPUs"


def memory(objects: Objects) -> Iterator[str]:
    """The object store fits into the Pod's shared memory, and that into its memory."""
    for place, group in ray_groups(objects):
        spec = group["template"]["spec"]
        volumes = {one["name"]: one for one in spec.get("volumes") or []}
        mounts = {one["mountPath"]: one["name"] for one in spec["containers"][0].get("volumeMounts") or []}
        shared = (volumes.get(mounts.get("/dev/shm", "")) or {}).get("emptyDir") or {}
        store = float((group.get("rayStartParams") or {}).get("object-store-memory", math.inf))
        limit = quantity(spec["containers"][0]["resources"].get("limits", {}).get("memory", 0))
        if shared.get("medium") != "Memory":
            yield f"{place}: /dev/shm is no memory, so that Ray writes images to files"
        elif not store <= quantity(shared.get("sizeLimit", 0)):
            yield f"{place}: the object store of {store:g} bytes does not fit into /dev/shm"
        elif quantity(shared["sizeLimit"]) > limit / 4:
            yield f"{place}: /dev/shm may take more than a quarter of the memory limit"
