"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of a run.

    Attributes:
        clients: Numbers of clients of the closed loop.
        rounds: How often the systems take turns at each number of clients.
        seconds: The time that counts of each turn.
        steps: Rates of random arrivals, each as a share of the best rate of any system in the closed loop.
        step_seconds: For how long requests arrive at each rate.
        objective_s: Within which an answer is a good one.
        tokens: Maximum number of tokens of an answer.
        threads: Threads of torch in each replica.
        images: Number of different images.
        streamed: Whether ours is also measured with answers that stream.
        hold: Whether systems that are not measured are held still (SIGSTOP).
    """

    clients: tuple[int, ...]
    rounds: int
    seconds: float
    steps: tuple[float, ...]
    step_seconds: float
    objective_s: float = 1.0
    tokens: int = 20
    threads: int = 1
    images: int = 64
    streamed: bool = True
    hold: bool = True


SCALES = {
    "full": Plan((1, 8, 32, 128), 3, 2.0, (0.3, 0.5, 0.65, 0.8, 0.9, 1.0, 1.15), 4.0),
    "quick": Plan((1, 32), 3, 0.7, (), 2.0, images=32, streamed=False),
    "tiny": Plan((2,), 1, 0.2, (0.5,), 0.5, images=4),
}
"""By name: ``tiny`` shows that everything works, and its numbers mean nothing."""

BATCHES = (1, 8, 32)
"""Of transformers without a server, measured where the number of clients is the same."""
WARM_UP_S = 0.5
"""Of load on each system before it is measured for the first time, at least."""
WARM_UP_CLIENTS = 32
"""At most so many then: no batch is larger."""
IDLE_S = 2.0
"""For how long the systems are watched while nobody asks them anything."""
SETTLE_S = 0.1
"""After a system was held still, and before it is measured: what it has missed is then done."""
WAKE_TRIES = 20
"""Requests that may fail when a system goes on, :data:`SETTLE_S` apart: a connection within it may have timed out."""
