"""What is done to the cluster while it answers, phase by phase, and how long it takes to recover from each."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from signal import SIGKILL

from benchmarks import processes
from benchmarks.chaos import plan
from benchmarks.chaos.applications import Applications, Waited
from benchmarks.chaos.balancer import Balancer
from benchmarks.chaos.load import Load
from benchmarks.chaos.nodes import Node, Nodes
from benchmarks.chaos.report import BALANCER, Event, Phase, logged

ENOUGH = 10
"""Answers of each model that are waited for before and after a change."""
BURST_S = 0.3
"""About as long as the requests take that begin together."""
SETTLED_S = 4.0
"""Serve sends a replica requests some time after it has reported that it is ready: to kill the other one before would
leave none, and nobody to try again."""


class Stage:
    """The cluster, the clients, and what has been seen."""

    def __init__(
        self, nodes: Nodes, balancer: Balancer, applications: Applications, load: Load, models: Sequence[str]
    ) -> None:
        self.phases: list[Phase] = []
        self._nodes = nodes
        self._balancer = balancer
        self._applications = applications
        self._load = load
        self._models = list(models)
        self._config = plan.config_of(self._models)
        self._rng = random.Random(1)  # noqa: S311  # not a secret

    async def begin(self) -> None:
        """Deploy, wait, and learn the answers."""
        await self._deploy(self._config)
        for name in (plan.ROUTER, *self._models):
            await self._applications.until_replaced(name, set(), plan.REPLICAS)
        for model in self._models:
            await self._load.learn(model)

    async def undisturbed(self, seconds: float) -> None:
        """What the others are compared with."""
        async with self._phase("nothing"):
            await asyncio.sleep(seconds)

    # Losses

    async def lose_replicas(self, seconds: float, every_s: float) -> None:
        """Kill a replica of a model, and of the next one when it is time again, whatever they do."""
        async with self._phase("a model's replica killed") as phase, asyncio.TaskGroup() as recovering:
            ends = phase.began + seconds
            number = 0
            while (now := time.monotonic()) < ends:
                model = self._models[number % len(self._models)]
                await self._settled(model)
                await self._kill_one(model, phase, recovering)
                number += 1
                await asyncio.sleep(max(0.0, now + every_s - time.monotonic()))

    async def lose_a_model(self, count: int) -> None:
        """Kill all replicas of a model at once, so many times, while another may answer in its place."""
        model, other = self._models[:2]
        with self._load.falling_back(model, other):
            async with self._phase("all replicas of a model killed, with a fallback") as phase:
                for _ in range(count):
                    await self._settled(model)
                    victims = await self._replicas(model)
                    await self._bad_moment()
                    began = time.monotonic()
                    for victim in victims:
                        os.kill(victim, SIGKILL)
                    await self._applications.until_replaced(model, victims, plan.REPLICAS)
                    self._note(phase, f"{model} killed", began)

    async def lose_routers(self, count: int) -> None:
        """Kill a replica of the router, so many times."""
        async with self._phase("a router's replica killed") as phase:
            for _ in range(count):
                async with asyncio.TaskGroup() as recovering:
                    await self._kill_one(plan.ROUTER, phase, recovering)
                await asyncio.sleep(SETTLED_S)

    async def lose_node(self) -> None:
        """Kill a worker with all that runs there, and then start another."""
        async with self._phase("a node killed") as phase:
            node = self._rng.choice(self._nodes.workers)
            lost = {name: {one for one in await self._replicas(name) if one in node.processes()} for name in self._all}
            await self._bad_moment()
            began = time.monotonic()
            self._nodes.kill(node)
            await self._load.answered(1, self._models)
            self._note(phase, "killed, until all models answer", began, ends_connections=True)
            await self._load.answered(ENOUGH, self._models)
            began = time.monotonic()
            await self.add_worker()
            for name in self._all:
                await self._applications.until_replaced(name, lost[name], plan.REPLICAS)
            self._note(phase, "another started, until all replicas are back", began)

    async def add_worker(self) -> Node:
        """Start one more node."""
        return await asyncio.to_thread(self._nodes.add_worker)

    # Changes

    async def update(self, name: str) -> None:
        """Change a setting of a model, or of the router, so that all its replicas are replaced."""
        change = plan.with_router_update(self._config) if name == plan.ROUTER else plan.with_update(self._config, name)
        kind = "the router" if name == plan.ROUTER else "a model"
        async with self._phase(f"update of {kind}", untouched=[one for one in self._all if one != name]) as phase:
            before = set(await self._replicas(name))
            began = time.monotonic()
            await self._deploy(change)
            await self._applications.until_replaced(name, before, plan.REPLICAS)
            self._note(phase, "until all are new", began)

    async def mistype(self, model: str) -> None:
        """Deploy a setting that does not exist on top of a model that runs, and then the config without it."""
        good = self._config
        async with self._phase("a typo deployed", untouched=self._all) as phase:
            began = time.monotonic()
            await self._deploy(plan.with_typo(good, model))
            await self._applications.until_status(model, "DEPLOY_FAILED")
            self._note(phase, "until refused", began)
            if "max_bacth" not in (message := await self._applications.message(model)):
                phase.wrong.append(f"the reason does not name the setting: {message[-300:]}")
            await self._load.answered(ENOUGH, self._models)
            began = time.monotonic()
            await self._deploy(good)
            await self._applications.until_status(model, "RUNNING")
            self._note(phase, "until mended", began)

    async def add(self, model: str) -> None:
        """Deploy one more model, and ask it, too."""
        async with self._phase("a model added", untouched=self._all) as phase:
            began = time.monotonic()
            await self._deploy(plan.with_model(self._config, model))
            await self._applications.until_replaced(model, set(), plan.REPLICAS)
            await asyncio.sleep(SETTLED_S)  # the router looks once a second
            await self._load.learn(model)
            self._note(phase, "until it answers", began)
            self._models.append(model)

    async def remove(self, model: str) -> None:
        """Ask it nothing more, and deploy the config without it."""
        self._models.remove(model)
        self._load.forget(model)
        async with self._phase("a model removed", untouched=self._all) as phase:
            began = time.monotonic()
            await self._deploy(plan.without(self._config, model))
            await self._applications.until_status(model, "GONE")
            self._note(phase, "until it is gone", began)

    # Parts

    @property
    def _all(self) -> list[str]:
        return [plan.ROUTER, *self._models]

    @asynccontextmanager
    async def _phase(self, name: str, untouched: Sequence[str] = ()) -> AsyncIterator[Phase]:
        """Begin and end with answers; ``untouched`` are the applications that are to keep their processes."""
        print(name, flush=True)
        await self._load.answered(ENOUGH, self._models)
        phase = Phase(name, time.monotonic())
        troubles = self._troubles()
        before = {one: self._alive(one) for one in untouched}
        self.phases.append(phase)
        try:
            yield phase
            await self._load.answered(ENOUGH, self._models)
        except* Waited as late:
            phase.wrong += map(str, late.exceptions)
        finally:
            phase.ended = time.monotonic()
            phase.logged = self._troubles() - troubles
        for one in untouched:
            if self._alive(one) != before[one]:
                phase.wrong.append(f"{one!r} has other processes: {before[one]}, {self._alive(one)}")

    def _troubles(self) -> Counter[str]:
        """What routers and the balancer have had to try again so far."""
        return logged(self._nodes.log(plan.ROUTER)) + Counter({BALANCER: self._balancer.retries()})

    async def _deploy(self, config: plan.Config) -> None:
        self._config = config
        await self._applications.deploy(config)

    async def _kill_one(self, name: str, phase: Phase, recovering: asyncio.TaskGroup) -> None:
        victim = self._rng.choice(sorted(await self._replicas(name)))
        await self._bad_moment()
        began = time.monotonic()
        os.kill(victim, SIGKILL)
        recovering.create_task(self._recover(name, victim, phase, began))

    async def _recover(self, name: str, victim: int, phase: Phase, began: float) -> None:
        await self._applications.until_replaced(name, {victim}, plan.REPLICAS)
        self._note(phase, f"{name} killed", began, ends_connections=name == plan.ROUTER)

    async def _bad_moment(self) -> None:
        """Wait until many requests are under way, whether they have just begun or are about to end."""
        await self._load.busy()
        await asyncio.sleep(self._rng.uniform(0, BURST_S))

    async def _settled(self, name: str) -> None:
        """Wait until all replicas run, and have done so for a moment."""
        while len(await self._replicas(name)) < plan.REPLICAS:
            await asyncio.sleep(0.2)
            if len(await self._replicas(name)) == plan.REPLICAS:
                await asyncio.sleep(SETTLED_S)

    async def _replicas(self, name: str) -> set[int]:
        return set(await self._applications.replicas(name)) & self._alive(name)

    def _alive(self, name: str) -> set[int]:
        """The processes of its replicas, whatever Serve knows of them."""
        return {one for one in processes.tree(os.getpid()) if f"ServeReplica:{name}:" in processes.title(one)}

    def _note(self, phase: Phase, what: str, began: float, *, ends_connections: bool = False) -> None:
        event = Event(what, began, time.monotonic() - began, ends_connections)
        phase.events.append(event)
        print(f"  {what}: {event.recovered_s:.1f} s", flush=True)
