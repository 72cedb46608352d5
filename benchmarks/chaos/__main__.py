"""python -m benchmarks.chaos: what clients notice when a cluster of three nodes is broken and changed under load.

    python -m benchmarks.chaos                          everything; a kill every 8 s for 3 minutes, about 10 minutes
    python -m benchmarks.chaos --minutes 0.5 --only replicas,node
    python -m benchmarks.chaos --json chaos.json

It starts three Ray nodes on this machine, a head without replicas and two workers, and deploys the config of production
with miniatures: two replicas of each model and of the router, on different nodes, behind Serve's HAProxy on every node
and a load balancer before them. Clients ask for whole answers and for streams whose text is known from before.
Meanwhile replicas and a node are killed, a model and the router are updated, a typo is deployed, and a model is added
and removed. The exit code is 1 where a request was not answered as it would have been alone, or a change touched what
it should not. All processes are ended in any case.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import yaml

from benchmarks.chaos import plan
from benchmarks.chaos.applications import Applications
from benchmarks.chaos.balancer import RETRY_ON, balancing
from benchmarks.chaos.load import Load
from benchmarks.chaos.nodes import HOST, Nodes, free_port
from benchmarks.chaos.phases import Stage
from benchmarks.chaos.report import Phase, Run, table
from benchmarks.http.report import machine
from benchmarks.http.servers import end_on_signals
from deployments.environment import variables
from deployments.local.processes import adopt_orphans, end_descendants

MODELS = ("blip-large", "florence-2-base")
ADDED = "kosmos-2"
WORKERS = 2
MOST_WORKERS = 4
"""Those that take the place of killed ones included."""
INGRESS_PORTS = 100
"""Serve gives out one to each replica, and the next to one that finds it taken, as it is by the other nodes here."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Break, change, count, and print what was seen."""
    options = _parser().parse_args(arguments)
    end_on_signals()
    adopt_orphans()
    began = machine(time.strftime("%Y-%m-%d %H:%M"), os.getloadavg()[0])
    with _folder() as folder:
        try:
            load, phases = _run(folder, options)
        finally:
            end_descendants()
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    run = Run(began, settings, phases, load.records)
    if options.json:
        options.json.write_text(run.to_json(), "utf-8")
    print("\n".join((*table(run), *_wrong(run))))
    return 0 if run.is_whole() else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3.0, help="for which replicas are killed (3)")
    parser.add_argument("--every", type=float, default=8.0, help="seconds between two kills (8)")
    parser.add_argument("--router-kills", type=int, default=3, help="replicas of the router that are killed (3)")
    parser.add_argument("--fallback-kills", type=int, default=4, help="of all replicas of a model at once (4)")
    parser.add_argument("--clients", type=int, default=8, help="that ask at the same moment (8)")
    parser.add_argument("--rate", type=float, default=6.0, help="requests a second of all of them (6)")
    parser.add_argument("--tokens", type=int, default=150, help="of an answer (150)")
    parser.add_argument("--retry-on", default=RETRY_ON, help=f"as the load balancer's HAProxy takes it ({RETRY_ON})")
    parser.add_argument("--only", type=_names, default=tuple(PHASES), help=f"by comma ({','.join(PHASES)})")
    parser.add_argument("--json", type=Path, help="where everything but the answers is written")
    return parser


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= PHASES.keys():
        raise ValueError(text)
    return names


Do = Callable[[Stage, argparse.Namespace], Awaitable[None]]

PHASES: Mapping[str, Do] = {
    "nothing": lambda stage, _: stage.undisturbed(15.0),
    "replicas": lambda stage, options: stage.lose_replicas(60 * options.minutes, options.every),
    "fallback": lambda stage, options: stage.lose_a_model(options.fallback_kills),
    "routers": lambda stage, options: stage.lose_routers(options.router_kills),
    "node": lambda stage, _: stage.lose_node(),
    "model-update": lambda stage, _: stage.update(MODELS[0]),
    "router-update": lambda stage, _: stage.update(plan.ROUTER),
    "typo": lambda stage, _: stage.mistype(MODELS[0]),
    "add": lambda stage, _: stage.add(ADDED),
    "remove": lambda stage, _: stage.remove(ADDED),
}
"""What is done, in this order; ``remove`` needs ``add`` before it."""


def _run(folder: Path, options: argparse.Namespace) -> tuple[Load, list[Phase]]:
    port, *ports = (free_port() for _ in range(MOST_WORKERS + 2))
    config = plan.config_of(list(MODELS))
    environment = _environment(folder, config)
    os.environ.update(environment)  # this process deploys, so it needs what the nodes have
    print("starting three nodes", flush=True)
    nodes = Nodes(folder, environment, ports[1:])
    for _ in range(WORKERS):
        nodes.add_worker()
    applications = Applications(nodes.address, ports[0], config)
    load = Load(f"http://{HOST}:{port}", options.clients, options.rate, options.tokens)
    with closing(applications), balancing(folder, port, ports, options.retry_on) as balancer:
        stage = Stage(nodes, balancer, applications, load, MODELS)
        asyncio.run(_play(stage, load, options))
    return load, stage.phases


async def _play(stage: Stage, load: Load, options: argparse.Namespace) -> None:
    await stage.begin()
    async with asyncio.TaskGroup() as group:
        with load.running(group):
            for name in options.only:
                await PHASES[name](stage, options)


def _environment(folder: Path, config: plan.Config) -> dict[str, str]:
    """What the documents say that a cluster's processes need, and what lets several nodes be on one machine."""
    path = folder / "serve_config.yaml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    first = free_port(INGRESS_PORTS + 1)
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ.update(token)  # before variables(), which imports Ray: it reads them once
    return {
        **token,
        **variables(path),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + INGRESS_PORTS),
        "RAY_raylet_start_wait_time_s": "120",
        "RAY_worker_niceness": "0",  # Ray's 15 would leave replicas what clients and other programs do not want
        "OMP_NUM_THREADS": "1",
    }


@contextmanager
def _folder() -> Iterator[Path]:
    """A new one, whose path is short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="gr-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wrong(run: Run) -> Iterator[str]:
    for phase in run.phases:
        yield from (f"{phase.name}: {text}" for text in phase.wrong)
        for record in run.of(phase):
            if record.outcome != "answered":
                what = "stream" if record.streams else "whole"
                took = record.ended - record.began
                yield f"{phase.name}: {record.model} {what} {record.outcome} after {took:.2f} s: {record.detail}"


if __name__ == "__main__":
    sys.exit(main())
