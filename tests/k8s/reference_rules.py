"""Names by which objects refer to each other, and labels by which they select Pods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from tests.k8s.objects import Object, Objects, Pod, cluster, name_of, of_kind, pods, ray_pods, ray_service

YOUR_SECRETS = {
    "gigarouter-accounts", "gigarouter-redis", "gigarouter-environment", "gigarouter-hub", "gigarouter-tls",
}  # fmt: skip
"""Secrets that k8s/README.md has the reader make."""

NODE_TYPES = ("head", "worker", "redis-cleanup")


def of_operator(pod: Pod, index: int) -> dict[str, str]:
    """The labels that KubeRay gives a Pod, beside ours."""
    group = pod.place.rpartition(" ")[2]
    kind = "head" if index == 0 else "worker"
    return {"ray.io/node-type": kind, "ray.io/group": "headgroup" if index == 0 else group}


def labels_of_pods(objects: Objects) -> list[dict[str, str]]:
    """The labels of each kind of Pod, those of the operator included."""
    ray = list(ray_pods(objects))
    with_operators = [{**pod.labels, **of_operator(pod, index)} for index, pod in enumerate(ray)]
    return [*with_operators, *(pod.labels for pod in list(pods(objects))[len(ray) :])]


def names(objects: Objects) -> Iterator[str]:
    """Whatever a Pod names is there: accounts, ConfigMaps, Secrets, claims, volumes."""
    there = {name_of(one) for one in objects}
    for pod in pods(objects):
        wanted = [f"ServiceAccount/{pod.spec.get('serviceAccountName')}"]
        for container in pod.containers:
            wanted += _named_by(container)
            yield from _mounts(pod, container)
        for volume in pod.spec.get("volumes") or []:
            if claim := volume.get("persistentVolumeClaim"):
                wanted.append(f"PersistentVolumeClaim/{claim['claimName']}")
        yield from (f"{pod.place}: there is no {one}" for one in wanted if one not in there and not _is_yours(one))
    password = (cluster(objects).get("gcsFaultToleranceOptions") or {}).get("redisPassword") or {}
    if (name := (password.get("valueFrom") or {}).get("secretKeyRef", {}).get("name")) and name not in YOUR_SECRETS:
        yield f"RayService/gigarouter gcsFaultToleranceOptions.redisPassword: no reader is told to make Secret/{name}"


def _is_yours(named: str) -> bool:
    kind, _, name = named.partition("/")
    return kind == "Secret" and name in YOUR_SECRETS


def _named_by(container: Object) -> list[str]:
    sources = [*(container.get("envFrom") or []), *((one.get("valueFrom") or {}) for one in container.get("env") or [])]
    kinds = {
        "configMapRef": "ConfigMap",
        "configMapKeyRef": "ConfigMap",
        "secretRef": "Secret",
        "secretKeyRef": "Secret",
    }
    return [f"{kind}/{source[key]['name']}" for source in sources for key, kind in kinds.items() if key in source]


def _mounts(pod: Pod, container: Object) -> Iterator[str]:
    volumes = {one["name"] for one in pod.spec.get("volumes") or []} | {
        one["metadata"]["name"] for one in pod.spec.get("volumeClaimTemplates") or []
    }
    mounts = container.get("volumeMounts") or []
    for mount in mounts:
        if mount["name"] not in volumes and not pod.place.startswith("StatefulSet/"):
            yield f"{pod.place} {container['name']}: there is no volume {mount['name']}"
    for path, count in Counter(mount["mountPath"] for mount in mounts).items():
        if count > 1:
            yield f"{pod.place} {container['name']}: {path} is mounted twice"
    for name, count in Counter(one["name"] for one in container.get("env") or []).items():
        if count > 1:
            yield f"{pod.place} {container['name']}: the variable {name} stands there twice"


def selectors(objects: Objects) -> Iterator[str]:
    """Whatever selects Pods selects some."""
    labels = labels_of_pods(objects)
    for one in objects:
        for selector in _selectors(one):
            if selector and not any(selector.items() <= found.items() for found in labels):
                yield f"{name_of(one)}: its selector matches no Pod: {selector}"
    for one in of_kind(objects, "StatefulSet"):
        if not one["spec"]["selector"]["matchLabels"].items() <= one["spec"]["template"]["metadata"]["labels"].items():
            yield f"{name_of(one)}: its selector does not match its own Pods"


def _selectors(one: Object) -> list[Mapping[str, str]]:
    spec = one.get("spec") or {}
    match one["kind"]:
        case "Service":
            return [spec.get("selector") or {}]
        case "PodDisruptionBudget" | "PodMonitor":
            return [spec["selector"].get("matchLabels") or {}]
        case "NetworkPolicy":
            peers = [peer for rule in spec.get("ingress") or [] for peer in rule.get("from") or []]
            inner = [(peer.get("podSelector") or {}).get("matchLabels") or {} for peer in peers]
            known = [one for one in inner if one.get("ray.io/node-type") != "redis-cleanup"]
            return [spec["podSelector"].get("matchLabels") or {}, *known]
    return []


def metrics_ports(objects: Objects) -> Iterator[str]:
    """Each port that Prometheus is told of is one of the Pods that it is told of."""
    ray = list(ray_pods(objects))
    labels = labels_of_pods(objects)
    for one in of_kind(objects, "PodMonitor"):
        for pod, found in zip(ray, labels, strict=False):
            if not one["spec"]["selector"]["matchLabels"].items() <= found.items():
                continue
            ports = {port["name"] for container in pod.containers for port in container.get("ports") or []}
            for endpoint in one["spec"]["podMetricsEndpoints"]:
                if endpoint["port"] not in ports:
                    yield f"{name_of(one)}: {pod.place} has no port {endpoint['port']}"


def services(objects: Objects) -> Iterator[str]:
    """An Ingress leads to the operator's Service, and a port that a Service names is one of its Pods."""
    operators = f"{ray_service(objects)['metadata']['name']}-serve-svc"
    for one in of_kind(objects, "Ingress"):
        for rule in one["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                if (service["name"], service["port"].get("number")) != (operators, 8000):
                    yield f"{name_of(one)}: leads to {service['name']} and not to port 8000 of {operators}"
        if {host for tls in one["spec"].get("tls") or [] for host in tls["hosts"]} != {
            rule.get("host") for rule in one["spec"]["rules"]
        }:
            yield f"{name_of(one)}: a host has no TLS"
        for tls in one["spec"].get("tls") or []:
            if tls["secretName"] not in YOUR_SECRETS:
                yield f"{name_of(one)}: no reader is told to make Secret/{tls['secretName']}"
    for one in of_kind(objects, "Service"):
        ports = {
            port["name"]
            for pod in pods(objects)
            if one["spec"]["selector"].items() <= pod.labels.items()
            for container in pod.containers
            for port in container.get("ports") or []
        }
        for port in one["spec"]["ports"]:
            if isinstance(port.get("targetPort"), str) and port["targetPort"] not in ports:
                yield f"{name_of(one)}: its Pods have no port {port['targetPort']}"


def metadata(objects: Objects) -> Iterator[str]:
    """Names and namespaces: all in one place, each object once."""
    for name, count in Counter(name_of(one) for one in objects).items():
        if count > 1:
            yield f"{name}: is there {count} times"
    namespaces = {one["metadata"]["name"] for one in of_kind(objects, "Namespace")}
    for one in objects:
        if one["kind"] != "Namespace" and (one.get("metadata") or {}).get("namespace") not in namespaces:
            yield f"{name_of(one)}: is in no namespace of the manifests"
        if (one["metadata"].get("labels") or {}).get("app.kubernetes.io/part-of") != "gigarouter":
            yield f"{name_of(one)}: does not say that it is part of gigarouter"


def budgets(objects: Objects) -> Iterator[str]:
    """A budget leaves room to drain a node, in a form that Kubernetes can apply to a RayCluster's Pods."""
    least = {
        group["template"]["metadata"]["labels"].get("app.kubernetes.io/component"): group.get("minReplicas", 0)
        for group in cluster(objects)["workerGroupSpecs"]
    }
    for one in of_kind(objects, "PodDisruptionBudget"):
        spec, place = one["spec"], name_of(one)
        if not isinstance(spec.get("minAvailable"), int) or "maxUnavailable" in spec:
            yield f"{place}: needs a whole number as minAvailable, since a RayCluster cannot be asked for its scale"
            continue
        if spec.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield f"{place}: lets a Pod that is not ready block a drain"
        group = (spec["selector"].get("matchLabels") or {}).get("app.kubernetes.io/component")
        if spec["minAvailable"] >= least.get(group, 0):
            yield f"{place}: keeps {spec['minAvailable']} of {least.get(group, 0)} Pods, so that no node can be drained"


def scalers(objects: Objects) -> Iterator[str]:
    """Serve and Ray decide how many replicas and Pods there are, and nothing else may."""
    for kind in ("HorizontalPodAutoscaler", "VerticalPodAutoscaler", "ScaledObject"):
        for one in of_kind(objects, kind):
            yield f"{name_of(one)}: would fight Ray's autoscaler"


def network(objects: Objects) -> Iterator[str]:
    """Where there are network policies, they let in whom the cluster needs, and nobody to everything."""
    policies = of_kind(objects, "NetworkPolicy")
    if not any(one["metadata"]["name"] == "gigarouter-cluster" for one in policies):
        return
    for one in policies:
        if one["spec"].get("policyTypes") != ["Egress"] and "Ingress" not in one["spec"].get("policyTypes", []):
            yield f"{name_of(one)}: does not say what may come in"
        for rule in one["spec"].get("ingress") or []:
            if not rule.get("from"):
                yield f"{name_of(one)}: lets everybody in"
            elif not rule.get("ports") and any("namespaceSelector" in peer for peer in rule["from"]):
                yield f"{name_of(one)}: opens every port to a namespace"
    opened = {(kind, port) for kind in ("head", "worker") for port in _ports_for(policies, kind, "kuberay-system")}
    for wanted in (("head", 8265), ("head", 8000), ("worker", 8000)):
        if wanted not in opened:
            yield f"NetworkPolicy: the operator does not reach port {wanted[1]} of a {wanted[0]}"
    of_all = [one for one in policies if is_for(one, {"app.kubernetes.io/part-of": "gigarouter"})]
    if not any(53 in egress_ports(one) for one in of_all):
        yield "NetworkPolicy: nothing may look up names"
    if cluster(objects).get("enableInTreeAutoscaling") and not any(
        443 in egress_ports(one) for one in policies if _selects(one, "head")
    ):
        yield "NetworkPolicy: the autoscaler does not reach the API server"


def fetching(objects: Objects) -> Iterator[str]:
    """A Job that fetches weights looks up names and reaches the hub, and reaches no Pod of the cluster."""
    for job in of_kind(objects, "Job"):
        if "fetch" not in job["spec"]["template"]["spec"]["containers"][0].get("command", []):
            continue
        labels = job["spec"]["template"]["metadata"].get("labels") or {}
        policies = [one for one in of_kind(objects, "NetworkPolicy") if is_for(one, labels)]
        ports = {port for one in policies for port in egress_ports(one)}
        if not policies:
            yield f"{name_of(job)}: no NetworkPolicy is for its Pods"
        for port, what in ((53, "look up names"), (443, "reach the hub")):
            if policies and port not in ports:
                yield f"{name_of(job)}: no NetworkPolicy lets it {what}"
        for one in policies:
            for rule in one["spec"].get("egress") or []:
                if any("podSelector" in peer for peer in rule.get("to") or [{"podSelector": {}}]):
                    yield f"{name_of(job)}: {name_of(one)} lets it reach Pods"


def is_for(policy: Object, labels: Mapping[str, str]) -> bool:
    """Whether a NetworkPolicy holds for Pods with these labels."""
    wanted = policy["spec"]["podSelector"].get("matchLabels") or {}
    return all(labels.get(name) == value for name, value in wanted.items())


def _selects(policy: Object, node_type: str) -> bool:
    return bool(policy["spec"]["podSelector"].get("matchLabels", {}).get("ray.io/node-type") == node_type)


def _ports_for(policies: Objects, node_type: str, namespace: str) -> Iterator[int]:
    for one in policies:
        for rule in one["spec"].get("ingress") or []:
            peers = [(peer.get("namespaceSelector") or {}).get("matchLabels") or {} for peer in rule.get("from") or []]
            if _selects(one, node_type) and {"kubernetes.io/metadata.name": namespace} in peers:
                yield from (port["port"] for port in rule.get("ports") or [])


def egress_ports(policy: Object) -> set[int]:
    """The ports of all that a NetworkPolicy lets out."""
    return {port["port"] for rule in policy["spec"].get("egress") or [] for port in rule.get("ports") or []}
