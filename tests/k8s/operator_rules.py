"""What the KubeRay operator (1.7) refuses or does silently wrong, which no schema says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from tests.k8s.objects import Object, Objects, cluster, env_of, ray_groups, ray_pods, ray_service

NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
MAX_NAME = 47
"""Characters of a RayService's name: the operator makes names of Pods and Services from it."""

UPGRADES = ("None", "NewCluster", "NewClusterWithIncrementalUpgrade")
TOKENS_FROM = (2, 52)
OF_REDIS = ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME")
UNLIMITED = 2**31 - 1


def service(objects: Objects) -> Iterator[str]:
    """Of the RayService itself."""
    one = ray_service(objects)
    spec, name = one["spec"], str(one["metadata"]["name"])
    if len(name) > MAX_NAME or not NAME.fullmatch(name):
        yield f"RayService/{name}: a name has at most {MAX_NAME} small letters, digits and hyphens"
    if "ray.io/initializing-timeout" in (one["metadata"].get("annotations") or {}):
        yield f"RayService/{name}: after initializing-timeout it must be deleted by hand"
    for key in ("serviceUnhealthySecondThreshold", "deploymentUnhealthySecondThreshold"):
        if key in spec:
            yield f"RayService/{name}: {key} is ignored"
    if one["apiVersion"] != "ray.io/v1":
        yield f"RayService/{name}: {one['apiVersion']} goes away with KubeRay 1.9"
    if spec.get("rayClusterDeletionDelaySeconds", 60) < 0:
        yield f"RayService/{name}: rayClusterDeletionDelaySeconds is negative"
    if spec.get("excludeHeadPodFromServeSvc") is not True:
        yield f"RayService/{name}: excludeHeadPodFromServeSvc is not true"
    if "serveService" in spec:
        yield f"RayService/{name}: serveService is read again only with the next cluster"
    yield from _upgrade(name, spec)


def _upgrade(name: str, spec: Object) -> Iterator[str]:
    strategy = spec.get("upgradeStrategy") or {}
    if strategy.get("type") not in UPGRADES:
        yield f"RayService/{name}: upgradeStrategy.type is not one of {', '.join(UPGRADES)}"
    if "upgradeStrategy" in spec["rayClusterConfig"]:
        yield f"RayService/{name}: rayClusterConfig.upgradeStrategy is for a RayCluster without a RayService"
    if strategy.get("type") != "NewClusterWithIncrementalUpgrade":
        return
    options = strategy.get("clusterUpgradeOptions") or {}
    surge, step = options.get("maxSurgePercent", 100), options.get("stepSizePercent", -1)
    if not spec["rayClusterConfig"].get("enableInTreeAutoscaling"):
        yield f"RayService/{name}: an incremental upgrade needs the autoscaler"
    if not options.get("gatewayClassName"):
        yield f"RayService/{name}: an incremental upgrade needs gatewayClassName"
    if not 0 <= surge <= 100 or not 0 <= step <= surge:
        yield f"RayService/{name}: 0 <= stepSizePercent <= maxSurgePercent <= 100 does not hold"
    if options.get("intervalSeconds", 0) <= 0:
        yield f"RayService/{name}: intervalSeconds is not above 0"


def authentication(objects: Objects) -> Iterator[str]:
    """Without a mode that is written down, the operator asks for no token."""
    found = cluster(objects)
    options = found.get("authOptions") or {}
    if options.get("mode") != "token":
        yield "RayService/gigarouter authOptions.mode: is not token, so that whoever reaches Ray runs code there"
    if options.get("enableK8sTokenAuth"):
        yield "RayService/gigarouter authOptions.enableK8sTokenAuth: is refused for a RayService"
    version = tuple(int(part) for part in re.findall(r"\d+", str(found.get("rayVersion", "0")))[:2])
    if version < TOKENS_FROM:
        yield f"RayService/gigarouter rayVersion: {found.get('rayVersion')} knows no tokens"
    for pod in ray_pods(objects):
        for container in pod.containers:
            for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
                if name in env_of(container):
                    yield f"{pod.place}: {name} is the operator's to set"


def groups(objects: Objects) -> Iterator[str]:
    """Of the groups of workers, and of what starts Ray in each Pod."""
    found = cluster(objects)
    scaled, options = bool(found.get("enableInTreeAutoscaling")), found.get("autoscalerOptions") or {}
    workers = found.get("workerGroupSpecs") or []
    for name, count in Counter(str(group.get("groupName")) for group in workers).items():
        if count > 1:
            yield f"RayService/gigarouter group {name}: is there {count} times"
    for group in workers:
        yield from _group(group, scaled and options.get("version") == "v2")
    for place, group in ray_groups(objects):
        yield from _start(place, group)
    if options and not scaled:
        yield "RayService/gigarouter autoscalerOptions: there is no autoscaler"
    if scaled and options.get("version") != "v2":
        yield "RayService/gigarouter autoscalerOptions.version: is not v2, which alone knows times of a group"


def _group(group: Object, second: bool) -> Iterator[str]:
    place = f"RayService/gigarouter group {group.get('groupName')}"
    least, most, now = group.get("minReplicas"), group.get("maxReplicas"), group.get("replicas")
    if not isinstance(most, int) or most >= UNLIMITED:
        yield f"{place}: maxReplicas is missing, which allows two thousand million"
    elif not isinstance(least, int) or not isinstance(now, int) or not 0 <= least <= now <= most:
        yield f"{place}: 0 <= minReplicas <= replicas <= maxReplicas does not hold"
    for key in ("idleTimeoutSeconds", "priority"):
        if key in group and not second:
            yield f"{place}: {key} needs the autoscaler's version v2"
    if group.get("idleTimeoutSeconds", 0) < 0:
        yield f"{place}: idleTimeoutSeconds is negative"
    policy = group["template"]["spec"].get("restartPolicy")
    if second and policy not in (None, "Never"):
        yield f"{place}: restartPolicy {policy} does not go with the autoscaler's version v2"


def _start(place: str, group: Object) -> Iterator[str]:
    params = group.get("rayStartParams") or {}
    for name, value in params.items():
        if not isinstance(value, str):
            yield f"{place}: rayStartParams.{name} is no text"
        if name.startswith("redis-") or name == "labels":
            yield f"{place}: rayStartParams.{name} is refused"
    if group.get("resources") and any(name.startswith("num-") for name in params):
        yield f"{place}: resources and rayStartParams both say what Ray may use"
    template = group["template"]
    if template.get("metadata", {}) is None:
        yield f"{place}: template.metadata is null"
    if not template["spec"].get("containers"):
        yield f"{place}: has no container"
    if "app.kubernetes.io/name" in ((template.get("metadata") or {}).get("labels") or {}):
        yield f"{place}: the label app.kubernetes.io/name is the operator's, and its Services select by it"


def head(objects: Objects) -> Iterator[str]:
    """Of the head: it runs no replica, has the port without which there is no Service, and stays where it is."""
    pod, group = next(ray_pods(objects)), cluster(objects)["headGroupSpec"]
    if (group.get("rayStartParams") or {}).get("num-cpus") != "0":
        yield f"{pod.place}: rayStartParams.num-cpus is not 0, so that replicas run beside the cluster's only GCS"
    if "serve" not in {port["name"] for port in pod.spec["containers"][0].get("ports") or []}:
        yield f"{pod.place}: has no port named serve, so that the operator makes no Service"
    annotations = pod.metadata.get("annotations") or {}
    if annotations.get("cluster-autoscaler.kubernetes.io/safe-to-evict") != "false":
        yield f"{pod.place}: may be evicted by the cluster's autoscaler"
    if annotations.get("karpenter.sh/do-not-disrupt") != "true":
        yield f"{pod.place}: may be moved by Karpenter"
    if (group.get("headService") or {}).get("metadata", {}).get("name"):
        yield f"{pod.place}: headService has a name, which the operator refuses"


def tolerance(objects: Objects) -> Iterator[str]:
    """What keeps the state of the head: Redis or RocksDB, by the options alone."""
    one, found = ray_service(objects), cluster(objects)
    options = found.get("gcsFaultToleranceOptions")
    if options is not None and "ray.io/ft-enabled" in (one["metadata"].get("annotations") or {}):
        yield "RayService/gigarouter: has the annotation ft-enabled beside gcsFaultToleranceOptions"
    for pod in ray_pods(objects):
        for container in pod.containers:
            for name in OF_REDIS:
                if name in env_of(container):
                    yield f"{pod.place}: {name} belongs into gcsFaultToleranceOptions"
    if options is None:
        return
    redis = any(key.startswith("redis") for key in options)
    if options.get("backend") == "rocksdb" and redis:
        yield "RayService/gigarouter gcsFaultToleranceOptions: has an address of Redis beside the backend rocksdb"
    if options.get("backend", "redis") == "redis" and not options.get("redisAddress"):
        yield "RayService/gigarouter gcsFaultToleranceOptions.redisAddress: is missing"
    if redis and "storage" in options:
        yield "RayService/gigarouter gcsFaultToleranceOptions: has storage beside an address of Redis"
    if "externalStorageNamespace" in options:
        yield "RayService/gigarouter gcsFaultToleranceOptions.externalStorageNamespace: two clusters would share it"


def gates(objects: Objects) -> Iterator[str]:
    """No field but rocksdb, which is a component's choice, needs a feature gate that is off by default."""
    for key in ("networkPolicy", "tlsOptions", "historyServerOptions"):
        if key in cluster(objects):
            yield f"RayService/gigarouter {key}: needs a feature gate of the operator"
