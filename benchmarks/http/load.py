"""Two kinds of load: a number of clients that ask one question after the other, and arrivals at random times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.http.client import Answered, Connections, Sent

LEAST = 3
"""Answers for each client, the first one included, so that a burst more or less does not decide."""


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a load.

    Attributes:
        answers: All of them, in the order in which they arrived.
        began, ended: The part of the time that counts: all clients were at work.
        client_cpu_s: CPU time of the process that asked.
    """

    answers: Sequence[Answered]
    began: float
    ended: float
    client_cpu_s: float

    @property
    def counted(self) -> list[Answered]:
        """The answers that arrived in the time that counts."""
        return [one for one in self.answers if self.began < one.done <= self.ended]


async def closed(port: int, requests: Iterator[Sent], clients: int, seconds: float, *, streaming: bool = False) -> Load:
    """Let each of ``clients`` send its next request when its last one has been answered.

    What counts begins when as many answers as there are clients have arrived, and then takes ``seconds``, and at least
    :data:`LEAST` times as many answers. Servers that batch requests answer in bursts, and a burst belongs to the time
    before it: so the time that counts begins with the last answer of a burst, and ends with that of a later one.
    """
    answers: list[Answered] = []
    deadline = over = float("inf")
    cpu = time.process_time()

    async def client(connections: Connections) -> None:
        nonlocal deadline, over
        while over == float("inf"):
            one = await connections.ask(requests)
            answers.append(one)
            if len(answers) == clients:
                deadline = one.done + seconds
            # With a broken connection, it would ask for ever.
            if one.status == 0 or (one.done >= deadline and len(answers) > LEAST * clients):
                over = min(over, one.done)

    async with Connections(port, streaming=streaming) as connections:
        await asyncio.gather(*(client(connections) for _ in range(clients)))
    return _between_answers(answers, clients, over, time.process_time() - cpu)


def _between_answers(answers: Sequence[Answered], warm_up: int, over: float, cpu_s: float) -> Load:
    """``over``: when the first answer arrived that is too late to count, and with it the next burst began."""
    times = [one.done for one in answers]
    began = times[min(warm_up, len(times)) - 1]
    ended = max((one for one in times if began < one < over), default=times[-1])
    return Load(answers, began, ended, cpu_s)


async def arriving(port: int, requests: Iterator[Sent], times: Sequence[float], *, streaming: bool = False) -> Load:
    """Send a request at each of ``times`` (seconds from now), whatever has become of those before.

    Each is timed from when it should have been sent, so that a client that falls behind does not hide it.
    """
    answers: list[Answered] = []
    cpu, began = time.process_time(), time.perf_counter()

    async def client(connections: Connections, due: float) -> None:
        answers.append(await connections.ask(requests, due))

    async with Connections(port, streaming=streaming) as connections, asyncio.TaskGroup() as group:
        for due in (began + offset for offset in times):
            await asyncio.sleep(due - time.perf_counter())
            group.create_task(client(connections, due))
    return Load(answers, began, max(one.done for one in answers), time.process_time() - cpu)
