"""Accounts on a cluster: URLs by reference, tables before routers, ways to both, a folder that outlives a restart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import yaml

from router.config import ENVIRONMENT
from tests.k8s.objects import Object, Objects, Pod, env_of, name_of, of_kind, ray_pods, ray_service
from tests.k8s.reference_rules import egress_ports, is_for
from tests.k8s.serve_rules import router_settings

SECRET = "gigarouter-accounts"
NEEDED = {"database_url": "GIGAROUTER_DATABASE_URL", "redis_url": "GIGAROUTER_REDIS_URL"}
"""Variables by the setting that says that they are read."""
CHOICES = ("GIGAROUTER_KEY_PEPPER", "GIGAROUTER_BOOTSTRAP_KEY")
MIGRATE = ["gigarouter", "accounts", "migrate", "--database", "environment"]
DATABASE_PORT, REDIS_PORT = 5432, 6379

HOOK, WEIGHT, DELETION = "helm.sh/hook", "helm.sh/hook-weight", "helm.sh/hook-delete-policy"
ARGO_HOOK, ARGO_WAVE = "argocd.argoproj.io/hook", "argocd.argoproj.io/sync-wave"
ARGO_DELETION = "argocd.argoproj.io/hook-delete-policy"
HOOKS: Mapping[str, str] = {
    HOOK: "pre-install,pre-upgrade", DELETION: "before-hook-creation", ARGO_HOOK: "Sync",
    ARGO_DELETION: "BeforeHookCreation",
}  # fmt: skip

IN_A_URL = re.compile(r"\b[a-z][a-z0-9+]*://[^\s/@:\"']*:[^\s/@\"']+@")
KEY = re.compile(r"\bgr-[A-Za-z0-9_-]{43}\b")


def in_environment(objects: Objects) -> bool:
    """Whether the routers have accounts, at a place that the environment names."""
    return router_settings(objects).database_url == ENVIRONMENT


def plain_text(objects: Objects) -> Iterator[str]:
    """No password of a URL and no key stands anywhere."""
    for one in objects:
        text = yaml.safe_dump(one, width=10_000)
        for pattern, what in ((IN_A_URL, "a URL with a password"), (KEY, "a key")):
            if pattern.search(text):
                yield f"{name_of(one)}: {what} stands there in plain text"


def variables(objects: Objects) -> Iterator[str]:
    """The URLs come from the Secret, and a Pod without them does not start."""
    settings = router_settings(objects)
    wanted = [name for setting, name in NEEDED.items() if getattr(settings, setting) == ENVIRONMENT]
    for pod in ray_pods(objects):
        found = env_of(pod.spec["containers"][0])
        yield from (f"{pod.place}: has no {name}, which the Serve config reads" for name in wanted if name not in found)
        for name in (*NEEDED.values(), *CHOICES):
            if name in found:
                yield from _reference(pod.place, name, found[name], optional=name in CHOICES)
                if settings.database_url is None:
                    yield f"{pod.place}: {name} is for accounts, and the Serve config has no database_url"


def _reference(place: str, name: str, value: object, *, optional: bool) -> Iterator[str]:
    reference = value.get("secretKeyRef") if isinstance(value, dict) else None
    if not reference:
        yield f"{place}: {name} does not come from a Secret"
        return
    if (reference.get("name"), reference.get("key")) != (SECRET, name):
        yield f"{place}: {name} is {reference.get('key')} of {reference.get('name')}, and not its own key of {SECRET}"
    if reference.get("optional", False) is not optional:
        yield f"{place}: {name} must {'' if optional else 'not '}be optional"


def outbox(objects: Objects) -> Iterator[str]:
    """What is not yet in the database outlives a restart of the container."""
    settings = router_settings(objects)
    if settings.database_url is None:
        return
    folder = PurePosixPath(settings.outbox_folder or "/tmp")
    for pod in list(ray_pods(objects))[1:]:
        mounts = pod.spec["containers"][0].get("volumeMounts") or []
        mount = next((one for one in mounts if folder.is_relative_to(one["mountPath"])), None)
        if mount is None:
            yield f"{pod.place}: no volume holds outbox_folder, {folder}"
            continue
        volume: Object = next((one for one in pod.spec.get("volumes") or [] if one["name"] == mount["name"]), {})
        if mount.get("readOnly"):
            yield f"{pod.place}: outbox_folder is mounted for reading alone"
        if "emptyDir" in volume and not volume["emptyDir"].get("sizeLimit"):
            yield f"{pod.place}: the volume {mount['name']} may take the whole disk of the node"


def migrating(objects: Objects) -> Iterator[str]:
    """One Job makes the tables before the routers start, whoever applies the objects, and gives up at some time."""
    jobs = [one for one in of_kind(objects, "Job") if _container(one).get("command") == MIGRATE]
    if not in_environment(objects):
        yield from (f"{name_of(one)}: the Serve config reads no database from the environment" for one in jobs)
        return
    if len(jobs) != 1:
        yield f"Job: {len(jobs)} run {' '.join(MIGRATE)}, so that the tables are {'made twice' if jobs else 'not made'}"
    for job in jobs:
        yield from _ends(job)
        yield from _reference(
            name_of(job), NEEDED["database_url"], env_of(_container(job)).get(NEEDED["database_url"]), optional=False
        )
        yield from _comes_first(job, objects)
        yield from _reaches_the_database_alone(job, objects)


def _container(job: Object) -> Object:
    found: Object = job["spec"]["template"]["spec"]["containers"][0]
    return found


def _ends(job: Object) -> Iterator[str]:
    for key in ("backoffLimit", "activeDeadlineSeconds"):
        if not job["spec"].get(key):
            yield f"{name_of(job)}: {key} is missing: a database that never answers would hold a rollout up without end"


def _comes_first(job: Object, objects: Objects) -> Iterator[str]:
    """By Helm's hooks and by Argo CD's waves; what the Job needs comes before it."""
    account = job["spec"]["template"]["spec"].get("serviceAccountName")
    named = {("ServiceAccount", account), ("NetworkPolicy", job["metadata"]["name"])}
    needed = [one for one in objects if (one["kind"], one["metadata"]["name"]) in named]
    for one in (*needed, job):
        yield from (
            f"{name_of(one)}: {name} is not {value}"
            for name, value in HOOKS.items()
            if _annotations(one).get(name) != value
        )
        if (one["metadata"].get("labels") or {}).get("app.kubernetes.io/component") != "migrate":
            yield f"{name_of(one)}: lacks the label by which kubectl applies it before all else"
    for one in needed:
        if not _number(one, WEIGHT) < _number(job, WEIGHT) or not _number(one, ARGO_WAVE) < _number(job, ARGO_WAVE):
            yield f"{name_of(one)}: does not come before {name_of(job)}, which needs it"
    for one in of_kind(objects, "Namespace"):
        if not all(_number(one, ARGO_WAVE) < _number(other, ARGO_WAVE) for other in (*needed, job)):
            yield f"{name_of(one)}: does not come before {name_of(job)}, which is in it"
    if not _number(job, ARGO_WAVE) < _number(ray_service(objects), ARGO_WAVE):
        yield f"{name_of(job)}: does not come before the RayService in Argo CD's waves"


def _annotations(one: Object) -> Mapping[str, str]:
    return one["metadata"].get("annotations") or {}


def _number(one: Object, name: str) -> int:
    return int(_annotations(one).get(name, "0"))


def _reaches_the_database_alone(job: Object, objects: Objects) -> Iterator[str]:
    labels = job["spec"]["template"]["metadata"].get("labels") or {}
    policies = [one for one in of_kind(objects, "NetworkPolicy") if is_for(one, labels)]
    ports = {port for one in policies for port in egress_ports(one)}
    if not policies:
        yield f"{name_of(job)}: no NetworkPolicy is for its Pods"
        return
    for port, what in ((53, "look up names"), (DATABASE_PORT, "reach the database")):
        if port not in ports:
            yield f"{name_of(job)}: no NetworkPolicy lets it {what}"
    for port in sorted(ports - {53, DATABASE_PORT}):
        yield f"{name_of(job)}: a NetworkPolicy lets it reach port {port}, which it has no use for"
    for one in policies:
        if any(_is_open(rule) for rule in one["spec"].get("egress") or []):
            yield f"{name_of(job)}: {name_of(one)} lets it reach every host or port"


def _is_open(rule: Object) -> bool:
    return not rule.get("to") or not rule.get("ports")


def reaching(objects: Objects) -> Iterator[str]:
    """Where there are network policies, routers reach their database and, where it is another one, their Redis."""
    policies = of_kind(objects, "NetworkPolicy")
    settings = router_settings(objects)
    if not in_environment(objects) or not any(one["metadata"]["name"] == "gigarouter-cluster" for one in policies):
        return
    wanted = [(DATABASE_PORT, "database"), *([(REDIS_PORT, "Redis")] if settings.redis_url else [])]
    for pod in list(ray_pods(objects))[1:]:
        ports = {port for one in policies if _is_for_workers(one, pod) for port in egress_ports(one)}
        yield from (
            f"NetworkPolicy: {pod.place} does not reach the {what} of accounts at port {port}"
            for port, what in wanted
            if port not in ports
        )


def _is_for_workers(policy: Object, pod: Pod) -> bool:
    return is_for(policy, {**pod.labels, "ray.io/node-type": "worker"})
