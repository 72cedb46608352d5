"""What a model and the processes around it take, in seconds: measured, or computed from what was measured."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Costs:
    """Service times of one model, in seconds of a core or of its device.

    Attributes:
        client: The client's, for each request.
        router, router_wake: The router's for each request, and what it takes more each time it was asleep.
        decode: Of a decoding process, for each new image.
        replica: The event loop of the replica, for each request.
        prefill, prefill_each: A start of sequences, and each of them with a new image.
        seen_share: The part of ``prefill_each`` that remains where the image's encoding is cached.
        step, step_row: A decode step, and each of its rows.
        background: Cores that Ray's controller and its other processes take, whatever happens.
        crowd: How much more work takes where there are twice as many threads with work as cores: caches are shared.
        tokens: Of an answer.
        device: Whether steps run on a device of the replica's own. Otherwise they and the event loop are one Python
            process, of which one thread runs at a time.
    """

    client: float
    router: float
    router_wake: float
    decode: float
    replica: float
    prefill: float
    prefill_each: float
    step: float
    step_row: float
    tokens: int
    background: float = 0.0
    crowd: float = 0.0
    seen_share: float = 0.3
    device: bool = False

    @classmethod
    def of(cls, content: Any) -> Self:
        """From a file's object; unknown names are left out."""
        return cls(**{one.name: content[one.name] for one in fields(cls) if one.name in content})

    def start(self, new: int, seen: int) -> float:
        """Seconds in which so many sequences start."""
        return self.prefill + self.prefill_each * (new + self.seen_share * seen) if new + seen else 0.0

    def decode_step(self, rows: int) -> float:
        """Seconds of a decode step."""
        return self.step + self.step_row * rows if rows else 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings that decide who waits where; see docs/architecture.md.

    Attributes:
        max_batch, max_waiting, max_prefill, decode_processes: As in the engine's config.
        max_requests: Of one process of the router.
        places_per_replica: The router's setting: it lets in twice as many for each replica.
        cached_images: Images whose encodings a replica keeps.
        retries: Times that a request without room is sent to another replica.
        deadline_s: Of a request.
    """

    max_batch: int = 32
    max_waiting: int = 64
    max_prefill: int = 8
    decode_processes: int = 2
    max_requests: int = 700
    places_per_replica: int = 32
    cached_images: int = 256
    retries: int = 2
    deadline_s: float = 120.0

    @property
    def places(self) -> int:
        """Requests that an engine holds."""
        return self.max_batch + self.max_waiting

    @property
    def let_in(self) -> int:
        """Requests that a router lets in for each replica: half of them wait."""
        return 2 * self.places_per_replica
