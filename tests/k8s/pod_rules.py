"""What holds of every Pod: security, memory and CPUs, images, probes, and secrets by reference alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.k8s.objects import Object, Objects, Pod, cluster, env_of, of_kind, pods, ray_pods

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
"""Sources of volumes that a restricted Pod may have."""

SECRET = re.compile(r"PASSWORD|PASSWD|TOKEN|SECRET|CREDENTIAL|API_?KEY|ACCESS_?KEY|DATABASE_URL|REDIS_URL|PEPPER|_KEY$")
PINNED = re.compile(r"[^\s:@]+(:\d+/[^\s:@]+)?(:[\w][\w.-]*|@sha256:[0-9a-f]{64})")


def security(objects: Objects) -> Iterator[str]:
    """Kubernetes' standard for restricted Pods, for ours and for the sidecar that the operator adds."""
    for pod in pods(objects):
        yield from _pod_security(pod)
        for container in pod.containers:
            yield from _container_security(f"{pod.place} {container['name']}", container.get("securityContext") or {})
    found = cluster(objects)
    if found.get("enableInTreeAutoscaling"):
        context = (found.get("autoscalerOptions") or {}).get("securityContext") or {}
        yield from _container_security("RayService/gigarouter autoscalerOptions", context)
    for one in of_kind(objects, "Namespace"):
        if one["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"Namespace/{one['metadata']['name']}: does not enforce restricted Pods"


def _pod_security(pod: Pod) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        if pod.spec.get(key):
            yield f"{pod.place}: {key} is set"
    context = pod.spec.get("securityContext") or {}
    if context.get("runAsNonRoot") is not True:
        yield f"{pod.place}: securityContext.runAsNonRoot is not true"
    if context.get("runAsUser", 0) == 0:
        yield f"{pod.place}: securityContext.runAsUser is root or not set"
    if (context.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield f"{pod.place}: securityContext.seccompProfile is not RuntimeDefault"
    if context.get("sysctls"):
        yield f"{pod.place}: securityContext.sysctls are set"
    for volume in pod.spec.get("volumes") or []:
        for source in volume.keys() - {"name"} - VOLUMES:
            yield f"{pod.place}: volume {volume['name']} is a {source}"


def _container_security(place: str, context: Object) -> Iterator[str]:
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{place}: securityContext.allowPrivilegeEscalation is not false"
    if (context.get("capabilities") or {}).get("drop") != ["ALL"]:
        yield f"{place}: securityContext.capabilities do not drop ALL"
    if (context.get("capabilities") or {}).get("add"):
        yield f"{place}: securityContext.capabilities add some"
    for key in ("privileged", "procMount"):
        if context.get(key):
            yield f"{place}: securityContext.{key} is set"
    if context.get("runAsUser") == 0 or context.get("runAsNonRoot") is False:
        yield f"{place}: securityContext runs it as root"


def resources(objects: Objects) -> Iterator[str]:
    """Memory that is promised is what may be taken, GPUs likewise; CPUs have no limit."""
    for pod in pods(objects):
        for container in pod.containers:
            yield from _resources(f"{pod.place} {container['name']}", container.get("resources") or {})
    if cluster(objects).get("enableInTreeAutoscaling"):
        options = cluster(objects).get("autoscalerOptions") or {}
        yield from _resources("RayService/gigarouter autoscalerOptions", options.get("resources") or {})


def _resources(place: str, found: Object) -> Iterator[str]:
    requests, limits = found.get("requests") or {}, found.get("limits") or {}
    if "cpu" not in requests:
        yield f"{place}: requests no cpu"
    if "cpu" in limits:
        yield f"{place}: limits cpu, so that a busy process is stopped for tens of milliseconds at a time"
    if "memory" not in limits:
        yield f"{place}: limits no memory"
    for name in (requests.keys() | limits.keys()) - {"cpu", "ephemeral-storage"}:
        if requests.get(name) != limits.get(name):
            yield f"{place}: requests {requests.get(name)} of {name} and is limited to {limits.get(name)}"


def images(objects: Objects) -> Iterator[str]:
    """Every image has a tag or a digest, and none is latest."""
    for pod in pods(objects):
        for container in pod.containers:
            place, image = f"{pod.place} {container['name']}", str(container.get("image", ""))
            if not PINNED.fullmatch(image):
                yield f"{place}: image {image!r} has no tag"
            if image.endswith(":latest"):
                yield f"{place}: image {image!r} is whatever is latest"
            if container.get("imagePullPolicy") not in ("IfNotPresent", "Never"):
                yield f"{place}: imagePullPolicy needs the registry at every start"


def one_image(objects: Objects) -> Iterator[str]:
    """Head and workers of a cluster run the same image."""
    found = {str(one["image"]) for pod in ray_pods(objects) for one in pod.containers if one.get("image")}
    if len(found) != 1:
        yield f"RayService/gigarouter: the Pods of one cluster have different images: {', '.join(sorted(found))}"


def jobs(objects: Objects) -> Iterator[str]:
    """Jobs run the cluster's image and end; the one that fetches weights reaches the hub and writes to the claim."""
    images = {str(one["image"]) for pod in ray_pods(objects) for one in pod.containers if one.get("image")}
    for one in of_kind(objects, "Job"):
        place, spec = f"Job/{one['metadata']['name']}", one["spec"]["template"]["spec"]
        if spec.get("restartPolicy") not in ("OnFailure", "Never"):
            yield f"{place}: restartPolicy would run it for ever"
        if not one["spec"].get("ttlSecondsAfterFinished"):
            yield f"{place}: ttlSecondsAfterFinished is missing: it would stay, and no other image could be applied"
        for container in spec["containers"]:
            if str(container["image"]) not in images:
                yield f"{place} {container['name']}: its image is not that of the cluster"
            if env_of(container).get("HF_HUB_OFFLINE"):
                yield f"{place} {container['name']}: HF_HUB_OFFLINE forbids what it is there for"
            if (container.get("securityContext") or {}).get("readOnlyRootFilesystem") is not True:
                yield f"{place} {container['name']}: securityContext.readOnlyRootFilesystem is not true"
            for mount in container.get("volumeMounts") or []:
                if mount.get("readOnly"):
                    yield f"{place} {container['name']}: {mount['mountPath']} is mounted for reading alone"


def probes(objects: Objects) -> Iterator[str]:
    """Each container has both probes, at a port that it has, and none runs a program of the image. A Job has none."""
    for pod in (one for one in pods(objects) if not one.place.startswith("Job/")):
        for container in pod.spec.get("containers", []):
            ports = {one["name"] for one in container.get("ports") or []}
            for kind in ("readinessProbe", "livenessProbe"):
                place, probe = f"{pod.place} {container['name']} {kind}", container.get(kind)
                if not probe:
                    yield f"{place}: is missing"
                    continue
                if "exec" in probe:
                    yield f"{place}: runs a program, which a slim image does not have"
                port = (probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port")
                if isinstance(port, str) and port not in ports:
                    yield f"{place}: there is no port {port}"


def serving_probe(objects: Objects) -> Iterator[str]:
    """A worker is ready when the HAProxy in it takes requests, whoever else does."""
    for pod in list(ray_pods(objects))[1:]:
        asked = (pod.spec["containers"][0].get("readinessProbe") or {}).get("httpGet") or {}
        if (asked.get("path"), asked.get("port")) != ("/-/healthz", "serve"):
            yield f"{pod.place}: readinessProbe does not ask /-/healthz at the port serve"


def secrets(objects: Objects) -> Iterator[str]:
    """Nothing secret stands in a manifest."""
    for one in of_kind(objects, "Secret"):
        yield f"Secret/{one['metadata']['name']}: is part of the manifests"
    for pod in pods(objects):
        for container in pod.containers:
            for name, value in env_of(container).items():
                if SECRET.search(name) and isinstance(value, str):
                    yield f"{pod.place} {container['name']}: {name} stands there in plain text"
            if SECRET.search(" ".join(map(str, container.get("args") or [])).replace("$PASSWORD", "")):
                yield f"{pod.place} {container['name']}: its arguments name a secret"
    options = cluster(objects).get("gcsFaultToleranceOptions") or {}
    for key in ("redisPassword", "redisUsername"):
        if "value" in (options.get(key) or {}):
            yield f"RayService/gigarouter gcsFaultToleranceOptions.{key}: stands there in plain text"


def tokens_of_accounts(objects: Objects) -> Iterator[str]:
    """Only a head with an autoscaler gets a token of its service account."""
    scaled = cluster(objects).get("enableInTreeAutoscaling") is True
    for index, pod in enumerate(pods(objects)):
        wanted = scaled and index == 0
        if pod.spec.get("automountServiceAccountToken") is not wanted:
            yield f"{pod.place}: automountServiceAccountToken is not {str(wanted).lower()}"
        if not pod.spec.get("serviceAccountName"):
            yield f"{pod.place}: has the namespace's default service account"
