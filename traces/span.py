"""A span: a part of the work for a request, from when to when it lasted and how it ended. Plain data until it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from traces.context import Context

Value = str | int | float | bool
Kind = Literal["server", "client", "internal"]

MAX_EVENTS = 64
"""Of one span: a request that is tried again for as long as its patience lasts has fewer."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at a moment of a span, with the time in nanoseconds since 1970."""

    name: str
    at_ns: int
    attributes: dict[str, Value]


@dataclass(eq=False, slots=True)
class Span:
    """One span; it is recorded once it has ended.

    Attributes:
        name: From a small set of names: nothing that a client writes.
        context: Its own ids.
        parent: The span that it is a part of; None for the first of a trace.
        began_ns, ended_ns: In nanoseconds since 1970.
        attributes: Names, numbers and words of our own; never a part of a request or an answer.
        link: A span that it follows without being a part of it.
        failed: Whether the server is at fault for how it ended.
    """

    name: str
    context: Context
    parent: Context | None
    kind: Kind
    began_ns: int
    ended_ns: int = 0
    attributes: dict[str, Value] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    link: Context | None = None
    failed: bool = False

    def note(self, name: str, at_ns: int, **attributes: Value) -> None:
        """Something has happened."""
        if len(self.events) < MAX_EVENTS:
            self.events.append(Event(name, at_ns, attributes))


class Recorder(Protocol):
    """Takes spans that have ended. Neither call may block or raise."""

    def put(self, span: Span) -> None:
        """Send it some time, or drop it."""
        ...

    def stop(self) -> None:
        """Send what there is, within a bounded time, and nothing more."""
        ...
