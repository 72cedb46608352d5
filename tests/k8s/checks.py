"""All checks of the manifests but those against schemas, and where the Pods of an overlay are to fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tests.k8s import accounts_rules, monitoring_rules, operator_rules, pod_rules, reference_rules, serve_rules
from tests.k8s.objects import Object, Objects, cluster, pods, ray_groups
from tests.k8s.serve_rules import GPU, quantity

Check = Callable[[Objects], Iterator[str]]

CHECKS: tuple[Check, ...] = (
    pod_rules.security, pod_rules.resources, pod_rules.images, pod_rules.one_image, pod_rules.jobs, pod_rules.probes,
    pod_rules.serving_probe, pod_rules.secrets, pod_rules.tokens_of_accounts,
    reference_rules.names, reference_rules.selectors, reference_rules.metrics_ports, reference_rules.services,
    reference_rules.metadata, reference_rules.budgets, reference_rules.scalers, reference_rules.network,
    reference_rules.fetching, monitoring_rules.monitors, monitoring_rules.rules,
    operator_rules.service, operator_rules.authentication, operator_rules.groups, operator_rules.head,
    operator_rules.tolerance, operator_rules.gates,
    serve_rules.config, serve_rules.environment, serve_rules.times, serve_rules.versions, serve_rules.room,
    serve_rules.memory,
    accounts_rules.plain_text, accounts_rules.variables, accounts_rules.outbox, accounts_rules.migrating,
    accounts_rules.reaching,
)  # fmt: skip


def faults(objects: Objects) -> list[str]:
    """Everything that is wrong with the objects of a kustomization."""
    return [fault for check in CHECKS for fault in check(objects)]


@dataclass(frozen=True, slots=True)
class Node:
    """What Pods may take of a node: less than the machine has, since the system's own Pods run there, too."""

    cpus: float
    memory_gib: float
    gpus: int = 0


NODES: Mapping[str, tuple[Node, ...]] = {
    "kind": (Node(3.2, 8.5),),  # 4 CPUs and 10 GB for Docker
    "gpu-single": (Node(15.0, 84, 1),),  # 16 CPUs, 96 GB and a GPU of 80 GB
    "gpu-prod": (Node(3.7, 13), Node(3.7, 13), Node(3.7, 13), Node(15.0, 120, 1), Node(15.0, 120, 1)),
}
"""The smallest nodes that k8s/README.md names for each overlay."""


def misfits(name: str, objects: Objects) -> Iterator[str]:
    """Pods that find no place on the nodes of an overlay, each group at its fewest; the largest come first."""
    free = [[node.cpus, node.memory_gib, float(node.gpus)] for node in NODES[name]]
    for place, wanted in sorted(_wanted(objects), key=lambda pair: [-one for one in reversed(pair[1])]):
        found = next((node for node in reversed_if_cpu(free, wanted) if _fits(wanted, node)), None)
        if found is None:
            yield f"{place}: needs {wanted[0]:g} CPUs, {wanted[1]:g} GiB and {wanted[2]:g} GPUs, which no node has left"
            continue
        for index, amount in enumerate(wanted):
            found[index] -= amount


def reversed_if_cpu(free: list[list[float]], wanted: list[float]) -> list[list[float]]:
    """Nodes without a GPU first, for Pods that need none."""
    return sorted(free, key=lambda node: node[2]) if not wanted[2] else free


def _fits(wanted: list[float], node: list[float]) -> bool:
    return all(amount <= there + 1e-9 for amount, there in zip(wanted, node, strict=True))


def _wanted(objects: Objects) -> Iterator[tuple[str, list[float]]]:
    counts = [1, *(group["minReplicas"] for _, group in list(ray_groups(objects))[1:])]
    sidecar = (cluster(objects).get("autoscalerOptions") or {}).get("resources")
    for index, pod in enumerate(pods(objects)):
        needed = [one["resources"] for one in pod.spec["containers"]] + ([sidecar] if sidecar and not index else [])
        for _ in range(counts[index] if index < len(counts) else 1):
            yield pod.place, _sum(needed)


def _sum(found: list[Object]) -> list[float]:
    requests = [one["requests"] for one in found]
    return [
        sum(quantity(one.get("cpu", 0)) for one in requests),
        sum(quantity(one.get("memory", 0)) for one in requests) / 2**30,
        sum(quantity(one.get(GPU, 0)) for one in requests),
    ]
