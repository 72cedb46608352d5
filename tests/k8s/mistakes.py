"""Mistakes that a hand makes in the manifests, one of each kind, and the words that must say where each is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.k8s.objects import Objects, name_of

GONE = object()
"""The value of a key that is taken away."""

SERVICE = "RayService/gigarouter"
CLUSTER = "spec.rayClusterConfig"
HEAD = f"{CLUSTER}.headGroupSpec"
HEAD_POD = f"{HEAD}.template.spec"
HEAD_BOX = f"{HEAD_POD}.containers.0"
CPU = f"{CLUSTER}.workerGroupSpecs.0"
CPU_POD = f"{CPU}.template.spec"
CPU_BOX = f"{CPU_POD}.containers.0"
GPU = f"{CLUSTER}.workerGroupSpecs.1"
GPU_POD = f"{GPU}.template.spec"
GPU_BOX = f"{GPU_POD}.containers.0"
REDIS = "StatefulSet/gigarouter-redis"
REDIS_BOX = "spec.template.spec.containers.0"
ALERTS = "PrometheusRule/gigarouter"
FETCH = "Job/gigarouter-fetch"
FETCH_BOX = "spec.template.spec.containers.0"
MIGRATE = "Job/gigarouter-migrate"
MIGRATE_BOX = FETCH_BOX
MIGRATE_WAY = "NetworkPolicy/gigarouter-migrate"
DATABASE_URL = 8
"""Where the variables of accounts begin among those of a Pod of Ray."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """``value`` in place of what is at ``path`` of the object ``where``; ``words`` must be among the faults."""

    where: str
    path: str
    value: Any
    words: str

    def make(self, objects: Objects) -> Objects:
        """The objects with the mistake."""
        (here,) = (one for one in objects if name_of(one) == self.where)
        *steps, last = self.path.split(".")
        found: Any = here
        for step in steps:
            found = found[int(step)] if isinstance(found, list) else found[step.replace("~", ".")]
        key: Any = int(last) if isinstance(found, list) else last.replace("~", ".")
        if self.value is GONE:
            del found[key]
        elif isinstance(found, list) and key == len(found):
            found.append(self.value)
        else:
            found[key] = self.value
        return objects


def of_service(path: str, value: Any, words: str) -> Mistake:
    return Mistake(SERVICE, path, value, words)


IN_PODS = (
    of_service(f"{HEAD_POD}.hostNetwork", True, "head: hostNetwork is set"),
    of_service(f"{HEAD_POD}.securityContext.runAsNonRoot", GONE, "head: securityContext.runAsNonRoot"),
    of_service(f"{CPU_POD}.securityContext.runAsUser", 0, "group cpu: securityContext.runAsUser is root"),
    of_service(f"{CPU_POD}.securityContext.seccompProfile", GONE, "group cpu: securityContext.seccompProfile"),
    of_service(f"{CPU_POD}.volumes.1", {"name": "tmp", "hostPath": {"path": "/"}}, "volume tmp is a hostPath"),
    of_service(f"{GPU_BOX}.securityContext", GONE, "group gpu ray-worker: securityContext.allowPrivilegeEscalation"),
    of_service(f"{GPU_BOX}.securityContext.privileged", True, "securityContext.privileged is set"),
    of_service(f"{GPU_BOX}.securityContext.capabilities.drop", ["NET_RAW"], "capabilities do not drop ALL"),
    of_service(f"{GPU_BOX}.securityContext.capabilities.add", ["SYS_ADMIN"], "capabilities add some"),
    of_service(f"{CLUSTER}.autoscalerOptions.securityContext", GONE, "autoscalerOptions: securityContext"),
    Mistake(
        "Namespace/gigarouter", "metadata.labels.pod-security~kubernetes~io/enforce", "baseline", "restricted Pods"
    ),
    of_service(f"{HEAD_BOX}.resources.requests.memory", "4Gi", "requests 4Gi of memory and is limited to 8Gi"),
    of_service(f"{HEAD_BOX}.resources.limits.cpu", "2", "head ray-head: limits cpu"),
    of_service(f"{CPU_BOX}.resources.requests.cpu", GONE, "group cpu ray-worker: requests no cpu"),
    of_service(f"{GPU_BOX}.resources.limits.memory", GONE, "group gpu ray-worker: limits no memory"),
    of_service(f"{GPU_BOX}.resources.requests.nvidia~com/gpu", "2", "requests 2 of nvidia.com/gpu"),
    of_service(f"{GPU_BOX}.image", "registry.example.com/gigarouter:latest", "is whatever is latest"),
    of_service(f"{GPU_BOX}.image", "registry.example.com/gigarouter", "has no tag"),
    of_service(f"{GPU_BOX}.image", "registry.example.com/gigarouter:0.0.9", "have different images"),
    of_service(f"{CPU_BOX}.imagePullPolicy", "Always", "imagePullPolicy needs the registry"),
    of_service(f"{CPU_BOX}.readinessProbe", GONE, "group cpu ray-worker readinessProbe: is missing"),
    of_service(f"{CPU_BOX}.livenessProbe", {"exec": {"command": ["wget"]}}, "livenessProbe: runs a program"),
    of_service(f"{CPU_BOX}.readinessProbe.httpGet.port", "http", "readinessProbe: there is no port http"),
    of_service(f"{CPU_BOX}.readinessProbe.httpGet.path", "/readyz", "does not ask /-/healthz"),
    of_service(f"{HEAD_BOX}.env.0", {"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}, "AWS_SECRET_ACCESS_KEY stands"),
    of_service(f"{HEAD_POD}.automountServiceAccountToken", False, "head: automountServiceAccountToken is not true"),
    of_service(f"{CPU_POD}.automountServiceAccountToken", True, "cpu: automountServiceAccountToken is not false"),
    of_service(f"{CPU_POD}.serviceAccountName", GONE, "has the namespace's default service account"),
    Mistake(REDIS, f"{REDIS_BOX}.env.0", {"name": "PASSWORD", "value": "5241590000000000"}, "PASSWORD stands there"),
    Mistake(REDIS, f"{REDIS_BOX}.image", "valkey/valkey:latest", "redis: image 'valkey/valkey:latest'"),
    Mistake(FETCH, "spec.template.spec.restartPolicy", "Always", "fetch: restartPolicy would run it for ever"),
    Mistake(FETCH, "spec.ttlSecondsAfterFinished", GONE, "fetch: ttlSecondsAfterFinished is missing"),
    Mistake(FETCH, f"{FETCH_BOX}.image", "registry.example.com/gigarouter:0.0.9", "is not that of the cluster"),
    Mistake(FETCH, f"{FETCH_BOX}.env.3", {"name": "HF_HUB_OFFLINE", "value": "1"}, "forbids what it is there for"),
    Mistake(FETCH, f"{FETCH_BOX}.volumeMounts.1.readOnly", True, "/models is mounted for reading alone"),
    Mistake(FETCH, f"{FETCH_BOX}.securityContext.readOnlyRootFilesystem", GONE, "fetch: securityContext.readOnly"),
    Mistake(
        FETCH,
        "spec.template.metadata.labels.app~kubernetes~io/part-of",
        "gigarouter",
        "Job/gigarouter-fetch: NetworkPolicy/gigarouter-cluster lets it reach Pods",
    ),
    Mistake(
        FETCH, "spec.template.metadata.labels.app~kubernetes~io/component", "x", "no NetworkPolicy is for its Pods"
    ),
    Mistake("NetworkPolicy/gigarouter-fetch", "spec.egress.0.ports", [], "no NetworkPolicy lets it look up names"),
    Mistake("NetworkPolicy/gigarouter-fetch", "spec.egress.1.ports", [], "no NetworkPolicy lets it reach the hub"),
    Mistake(FETCH, f"{FETCH_BOX}.env.2", {"name": "HF_TOKEN", "value": "hf_x"}, "HF_TOKEN stands there"),
)

IN_REFERENCES = (
    of_service(f"{CPU_POD}.serviceAccountName", "ray", "there is no ServiceAccount/ray"),
    of_service(f"{CPU_BOX}.envFrom.0.configMapRef.name", "gigarouter-transport", "ConfigMap/gigarouter-transport"),
    of_service(f"{CPU_BOX}.envFrom.1.secretRef.name", "keys", "there is no Secret/keys"),
    of_service(f"{GPU_POD}.volumes.2.persistentVolumeClaim.claimName", "m", "there is no PersistentVolumeClaim/m"),
    of_service(f"{GPU_BOX}.volumeMounts.0.name", "dshm", "there is no volume dshm"),
    of_service(f"{GPU_BOX}.volumeMounts.1.mountPath", "/models", "/models is mounted twice"),
    of_service(f"{GPU_BOX}.env.1", {"name": "HF_HOME", "value": "/models"}, "the variable HF_HOME stands there twice"),
    of_service(
        f"{GPU}.template.metadata.labels.app~kubernetes~io/component", "gpus", "PodDisruptionBudget/gigarouter-gpu"
    ),
    Mistake("PodMonitor/gigarouter-head", "spec.podMetricsEndpoints.0.port", "prom", "has no port prom"),
    Mistake("PodMonitor/gigarouter-head", "spec.podMetricEndpoints", [], "unknown key podMetricEndpoints"),
    Mistake("PodMonitor/gigarouter-head", "spec.podMetricsEndpoints", [], "scrapes nothing"),
    Mistake("PodMonitor/gigarouter-head", "spec.podMetricsEndpoints.1.port", 8080, "port is not the name of a port"),
    Mistake("PodMonitor/gigarouter-head", "spec.podMetricsEndpoints.0.intervall", "9s", "unknown key intervall"),
    Mistake("PodMonitor/gigarouter-head", "spec.podMetricsEndpoints.0.interval", "15", "interval '15' is no duration"),
    Mistake(ALERTS, "spec.groups.0.name", "", "a group has no name of its own"),
    Mistake(ALERTS, "spec.groups.0.rules.0.expression", "1", "GigarouterHeadMemory: unknown key expression"),
    Mistake(ALERTS, "spec.groups.0.rules.0.expr", "", "GigarouterHeadMemory: has no expression"),
    Mistake(ALERTS, "spec.groups.0.rules.0.expr", "max by (pod) (x > 0", "a bracket of its expression is not closed"),
    Mistake(ALERTS, "spec.groups.0.rules.0.for", "five minutes", "for 'five minutes' is no duration"),
    Mistake(ALERTS, "spec.groups.0.rules.0.labels.severity", "high", "severity is none of critical, warning"),
    Mistake(ALERTS, "spec.groups.0.rules.0.annotations", {}, "GigarouterHeadMemory: has no summary"),
    Mistake(ALERTS, "spec.groups.0.rules.0.annotations.summary", "{{ $pod }}", "is no variable of an alert"),
    Mistake("PodMonitor/gigarouter-head", "spec.selector.matchLabels.ray~io/node-type", "heads", "matches no Pod"),
    Mistake("Service/gigarouter-redis", "spec.selector.app~kubernetes~io/component", "cache", "matches no Pod"),
    Mistake("Service/gigarouter-redis", "spec.ports.0.targetPort", "tls", "its Pods have no port tls"),
    Mistake(REDIS, "spec.selector.matchLabels.app~kubernetes~io/component", "cache", "does not match its own Pods"),
    Mistake("Ingress/gigarouter", "spec.rules.0.http.paths.0.backend.service.name", "gigarouter-head-svc", "leads to"),
    Mistake("Ingress/gigarouter", "spec.tls.0.hosts.0", "example.com", "a host has no TLS"),
    Mistake("Ingress/gigarouter", "spec.tls.0.secretName", "tls", "no reader is told to make Secret/tls"),
    Mistake("PersistentVolumeClaim/gigarouter-models", "metadata.namespace", "default", "is in no namespace"),
    Mistake("PodDisruptionBudget/gigarouter-cpu", "spec.minAvailable", "50%", "needs a whole number"),
    Mistake("PodDisruptionBudget/gigarouter-cpu", "spec.minAvailable", 2, "no node can be drained"),
    Mistake("PodDisruptionBudget/gigarouter-gpu", "spec.unhealthyPodEvictionPolicy", GONE, "block a drain"),
    Mistake("PodDisruptionBudget/gigarouter-gpu", "kind", "HorizontalPodAutoscaler", "would fight Ray's autoscaler"),
    Mistake("NetworkPolicy/gigarouter-workers", "spec.ingress.0.from", GONE, "lets everybody in"),
    Mistake("NetworkPolicy/gigarouter-workers", "spec.ingress.0.ports", GONE, "opens every port to a namespace"),
    Mistake("NetworkPolicy/gigarouter-head", "spec.ingress.0.ports.1", GONE, "does not reach port 8000 of a head"),
    Mistake("NetworkPolicy/gigarouter-cluster", "spec.egress.1", GONE, "nothing may look up names"),
    Mistake("NetworkPolicy/gigarouter-head", "spec.egress", [], "does not reach the API server"),
)


def from_secret(name: str, key: str, **more: Any) -> dict[str, Any]:
    """A variable that comes from the Secret of accounts."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": "gigarouter-accounts", "key": key, **more}}}


IN_ACCOUNTS = (
    of_service(f"{CPU_BOX}.env.{DATABASE_URL}", GONE, "group cpu: has no GIGAROUTER_DATABASE_URL"),
    of_service(f"{GPU_BOX}.env.{DATABASE_URL + 1}", GONE, "group gpu: has no GIGAROUTER_REDIS_URL, which the Serve"),
    of_service(
        f"{CPU_BOX}.env.{DATABASE_URL}",
        {"name": "GIGAROUTER_DATABASE_URL", "value": "environment"},
        "GIGAROUTER_DATABASE_URL does not come from a Secret",
    ),
    of_service(
        f"{HEAD_BOX}.env.{DATABASE_URL + 1}",
        from_secret("GIGAROUTER_REDIS_URL", "password"),
        "GIGAROUTER_REDIS_URL is password of gigarouter-accounts, and not its own key",
    ),
    of_service(
        f"{GPU_BOX}.env.{DATABASE_URL}",
        from_secret("GIGAROUTER_DATABASE_URL", "GIGAROUTER_DATABASE_URL", optional=True),
        "gpu: GIGAROUTER_DATABASE_URL must not be optional",
    ),
    of_service(
        f"{CPU_BOX}.env.{DATABASE_URL + 3}",
        from_secret("GIGAROUTER_BOOTSTRAP_KEY", "GIGAROUTER_BOOTSTRAP_KEY"),
        "cpu: GIGAROUTER_BOOTSTRAP_KEY must be optional",
    ),
    of_service(
        f"{HEAD_BOX}.env.{DATABASE_URL + 2}",
        {"name": "GIGAROUTER_KEY_PEPPER", "value": "0" * 64},
        "head ray-head: GIGAROUTER_KEY_PEPPER stands there in plain text",
    ),
    of_service(
        f"{HEAD_BOX}.env.0",
        {"name": "PLACE", "value": "postgresql://gigarouter:5241590@postgres/gigarouter"},
        "RayService/gigarouter: a URL with a password stands there",
    ),
    Mistake(
        MIGRATE,
        "metadata.annotations.note",
        "the first key is gr-" + "x" * 43,
        "Job/gigarouter-migrate: a key stands there in plain text",
    ),
    of_service(f"{CPU_BOX}.volumeMounts.3", GONE, "cpu: no volume holds outbox_folder, /var/lib/gigarouter/outbox"),
    of_service(f"{GPU_BOX}.volumeMounts.3.readOnly", True, "gpu: outbox_folder is mounted for reading alone"),
    of_service(f"{GPU_POD}.volumes.3.emptyDir", {}, "gpu: the volume accounts may take the whole disk of the node"),
    Mistake(MIGRATE, f"{MIGRATE_BOX}.command", ["gigarouter", "accounts", "check"], "so that the tables are not made"),
    Mistake(MIGRATE, "spec.backoffLimit", GONE, "migrate: backoffLimit is missing"),
    Mistake(MIGRATE, "spec.activeDeadlineSeconds", GONE, "migrate: activeDeadlineSeconds is missing"),
    Mistake(MIGRATE, "spec.template.spec.restartPolicy", "Always", "migrate: restartPolicy would run it for ever"),
    Mistake(MIGRATE, f"{MIGRATE_BOX}.image", "registry.example.com/gigarouter:0.0.9", "is not that of the cluster"),
    Mistake(
        MIGRATE,
        f"{MIGRATE_BOX}.env.0",
        from_secret("GIGAROUTER_DATABASE_URL", "url"),
        "Job/gigarouter-migrate: GIGAROUTER_DATABASE_URL is url of",
    ),
    Mistake(MIGRATE, f"{MIGRATE_BOX}.env.0", GONE, "Job/gigarouter-migrate: GIGAROUTER_DATABASE_URL does not come"),
    Mistake(MIGRATE, "metadata.annotations.helm~sh/hook", "post-install", "helm.sh/hook is not pre-install"),
    Mistake(
        MIGRATE, "metadata.annotations.helm~sh/hook-weight", "-2", "ServiceAccount/gigarouter-migrate: does not come b"
    ),
    Mistake(
        MIGRATE, "metadata.annotations.argocd~argoproj~io/sync-wave", "0", "does not come before the RayService in Argo"
    ),
    Mistake(
        "ServiceAccount/gigarouter-migrate", "metadata.labels.app~kubernetes~io/component", GONE,
        "ServiceAccount/gigarouter-migrate: lacks the label by which kubectl applies it",
    ),
    Mistake("Namespace/gigarouter", "metadata.annotations", GONE, "Namespace/gigarouter: does not come before"),
    Mistake(MIGRATE_WAY, "spec.egress.0.ports", [], "migrate: no NetworkPolicy lets it look up names"),
    Mistake(MIGRATE_WAY, "spec.egress.1", GONE, "migrate: no NetworkPolicy lets it reach the database"),
    Mistake(MIGRATE_WAY, "spec.egress.1.to", GONE, "NetworkPolicy/gigarouter-migrate lets it reach every host or port"),
    Mistake(MIGRATE_WAY, "spec.egress.1.ports.1", {"protocol": "TCP", "port": 8265}, "lets it reach port 8265"),
    Mistake(
        "NetworkPolicy/gigarouter-workers", "spec.egress.1.ports.0", GONE,
        "group cpu does not reach the database of accounts at port 5432",
    ),
    Mistake(
        "NetworkPolicy/gigarouter-workers", "spec.egress.1", GONE,
        "group gpu does not reach the Redis of accounts at port 6379",
    ),
)  # fmt: skip

FOR_THE_OPERATOR = (
    of_service("metadata.name", "gigarouter-" + "x" * 40, "a name has at most 47"),
    of_service("metadata.annotations", {"ray.io/initializing-timeout": "5m"}, "must be deleted by hand"),
    of_service("apiVersion", "ray.io/v1alpha1", "goes away with KubeRay 1.9"),
    of_service("spec.serviceUnhealthySecondThreshold", 900, "serviceUnhealthySecondThreshold is ignored"),
    of_service("spec.excludeHeadPodFromServeSvc", GONE, "excludeHeadPodFromServeSvc is not true"),
    of_service("spec.upgradeStrategy.type", "RollingUpdate", "upgradeStrategy.type is not one of"),
    of_service("spec.upgradeStrategy.type", "NewClusterWithIncrementalUpgrade", "needs gatewayClassName"),
    of_service(f"{CLUSTER}.upgradeStrategy", {"type": "Recreate"}, "is for a RayCluster without a RayService"),
    of_service(f"{CLUSTER}.authOptions", GONE, "authOptions.mode: is not token"),
    of_service(f"{CLUSTER}.rayVersion", "2.46.0", "rayVersion: 2.46.0 knows no tokens"),
    of_service(f"{CLUSTER}.rayVersion", "2.59.0", "and requirements/run.lock has"),
    of_service(f"{HEAD_BOX}.env.0", {"name": "RAY_AUTH_MODE", "value": "disabled"}, "RAY_AUTH_MODE is the operator's"),
    of_service(f"{GPU}.groupName", "cpu", "group cpu: is there 2 times"),
    of_service(f"{GPU}.maxReplicas", GONE, "group gpu: maxReplicas is missing"),
    of_service(f"{GPU}.minReplicas", 9, "0 <= minReplicas <= replicas <= maxReplicas does not hold"),
    of_service(f"{CLUSTER}.autoscalerOptions.version", "v1", "autoscalerOptions.version: is not v2"),
    of_service(f"{CLUSTER}.enableInTreeAutoscaling", False, "autoscalerOptions: there is no autoscaler"),
    of_service(f"{GPU_POD}.restartPolicy", "Always", "restartPolicy Always does not go"),
    of_service(f"{CPU}.rayStartParams.num-cpus", 2, "rayStartParams.num-cpus is no text"),
    of_service(f"{HEAD}.rayStartParams.redis-password", "x", "rayStartParams.redis-password is refused"),
    of_service(f"{HEAD}.rayStartParams.num-cpus", GONE, "head: rayStartParams.num-cpus is not 0"),
    of_service(f"{HEAD}.template.metadata.labels.app~kubernetes~io/name", "router", "is the operator's"),
    of_service(f"{HEAD_BOX}.ports.3.name", "http", "has no port named serve"),
    of_service(f"{HEAD}.template.metadata.annotations", {}, "may be evicted by the cluster's autoscaler"),
    of_service(f"{HEAD_BOX}.env.0", {"name": "REDIS_PASSWORD", "valueFrom": {}}, "belongs into gcsFaultTolerance"),
    of_service(f"{CLUSTER}.gcsFaultToleranceOptions.redisAddress", GONE, "redisAddress: is missing"),
    of_service(f"{CLUSTER}.gcsFaultToleranceOptions.redisPassword", {"value": "x"}, "redisPassword: stands there in"),
    of_service(f"{CLUSTER}.gcsFaultToleranceOptions.backend", "rocksdb", "an address of Redis beside the backend"),
    of_service(f"{CLUSTER}.gcsFaultToleranceOptions.externalStorageNamespace", "a", "two clusters would share it"),
    of_service(f"{CLUSTER}.tlsOptions", {}, "tlsOptions: needs a feature gate"),
)

WITH_SERVE = (
    of_service(f"{HEAD_BOX}.env.0.value", "30", "DRAIN_TIMEOUT_S is 30, and a request may take 120 s"),
    of_service(f"{CPU_POD}.terminationGracePeriodSeconds", GONE, "cpu: terminationGracePeriodSeconds 30 ends before"),
    of_service(f"{CPU_BOX}.lifecycle", {"preStop": {"exec": {"command": ["ray", "stop"]}}}, "preStop stops Ray"),
    of_service("spec.rayClusterDeletionDelaySeconds", GONE, "the old cluster goes before its requests end"),
    of_service(f"{GPU_BOX}.envFrom.0", GONE, "group gpu: RAY_SERVE_ENABLE_HA_PROXY is None"),
    of_service(f"{GPU_BOX}.env.1.value", "0", "RAY_SERVE_USE_PACK_SCHEDULING_STRATEGY is '0', and '1' on the head"),
    of_service(f"{GPU_BOX}.resources.requests.cpu", "3", "no Pod has room for its"),
    of_service(f"{GPU_BOX}.resources.requests.cpu", "4", "of a new version beside the old one"),
    of_service(f"{GPU_POD}.volumes.0.emptyDir", {}, "gpu: /dev/shm is no memory"),
    of_service(f"{GPU}.rayStartParams.object-store-memory", "8589934592", "does not fit into /dev/shm"),
    of_service(f"{GPU_POD}.volumes.0.emptyDir.sizeLimit", "16Gi", "more than a quarter of the memory limit"),
    Mistake(
        "Ingress/gigarouter", "metadata.annotations.nginx~ingress~kubernetes~io/proxy-read-timeout", "60",
        "proxy-read-timeout 60 ends before a request does",
    ),
)  # fmt: skip

IN_THE_CONFIG = (
    ("proxy_location: EveryNode", "proxy_location: HeadOnly", "proxy_location: is not EveryNode"),
    ("proxy_location: EveryNode", "proxy_locations: EveryNode", "proxy_locations"),
    ("host: 0.0.0.0", "host: 127.0.0.1", "http_options.host: is not 0.0.0.0"),
    ("port: 8000", "port: 8080", "http_options.port: is not 8000"),
    ("num_gpus: 0.065", "num_gpu: 0.065", "num_gpu"),
    ("num_gpus: 0.065", "num_gpus: 1.5", "num_gpus"),
    ("min_replicas: 2", "min_replica: 2", "min_replica"),
    ("min_replicas: 2", "min_replicas: 9", "min_replicas"),
    ("route_prefix: /\n", "route_prefix: api\n", "route_prefix"),
    ("required_models: [blip-large,", "required_models: [blip-larger,", "blip-larger"),
    ("request_timeout_s: 120", "request_timeout_s: 600", "a request may take 600 s"),
    ("request_timeout_s: 120", "request_timeout_s: 110", "GIGAROUTER_FRONT is"),
    ("database_url: environment\n", "allow_without_keys: true\n", "is for accounts, and the Serve config has no data"),
    ("      database_url: environment\n", "", "the router refuses to start"),
    ("database_url: environment", "database_url: postgresql://router:x@db/a", "database_url must be"),
    ("database_url: environment", "database_url: sqlite:////srv/a.db", "is a file of one machine, and 8 routers"),
    ("redis_url: environment", "allow_without_keys: true", "allow_without_keys: contradicts database_url"),
    ("redis_url: environment", "", "each router counts the limits of keys by itself"),
    ("outbox_folder: /var/lib/gigarouter/", "outbox_folder: /srv/", "no volume holds outbox_folder, /srv/outbox"),
    ("max_surge_percent: 100 # the new", "max_surge_percent: 0 # the new", "blip-large: its only replica stops"),
)
"""(what stands in serve_config.yaml, the mistake, the words)."""

FOR_THE_SCHEMA = (
    of_service("spec.rayClusterSpec", {}, "'rayClusterSpec' was unexpected"),
    of_service("spec.upgradeStrategy.maxSurgePercent", 50, "'maxSurgePercent' was unexpected"),
    of_service(f"{HEAD}.template.metadata", None, "template.metadata: None is not of type 'object'"),
    of_service(f"{HEAD_BOX}.readinessprobe", {}, "'readinessprobe' was unexpected"),
    of_service(f"{GPU}.groupName", GONE, "'groupName' is a required property"),
    of_service(f"{GPU}.maxReplicas", "4", "maxReplicas: '4' is not of type 'integer'"),
    of_service(f"{GPU_BOX}.resources.limits.memory", "48 GB", "'48 GB' does not match"),
    of_service(f"{CLUSTER}.authOptions.mode", "tokens", "'tokens' is not one of"),
    of_service(f"{CLUSTER}.autoscalerOptions.idleTimeout", 3, "'idleTimeout' was unexpected"),
)

FOR_KUBERNETES = (
    Mistake("PodDisruptionBudget/gigarouter-cpu", "spec.maxUnavailible", 1, "PodDisruptionBudget/gigarouter-cpu"),
    Mistake("NetworkPolicy/gigarouter-head", "spec.podSelector", GONE, "NetworkPolicy/gigarouter-head"),
    Mistake(REDIS, "spec.replicas", "one", "StatefulSet/gigarouter-redis"),
    Mistake("Ingress/gigarouter", "spec.rules.0.http.paths.0.pathType", GONE, "Ingress/gigarouter"),
    Mistake(
        "PersistentVolumeClaim/gigarouter-models", "spec.accessMode", [], "PersistentVolumeClaim/gigarouter-models"
    ),
)
