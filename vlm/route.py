"""Where a request has been: what its attempts leave for whoever chooses the replica of the next one."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(eq=False, slots=True, weakref_slot=True)
class Route:
    """Shared by all attempts at one request, in the process that makes them; a replica gets an empty one.

    Attributes:
        taken: Names of the replicas that have accepted the request, in order. When the next one is chosen, each of them
            has failed it.
        gone: Whether the last of them takes no more requests, of whomever.
    """

    taken: list[str] = field(default_factory=list)
    gone: bool = False

    def __reduce__(self) -> tuple[type[Route], tuple[()]]:
        return Route, ()
