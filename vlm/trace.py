"""Where the trace of a request goes on: what a router hands to a replica together with the request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trace:
    """The call that a replica answers, as a part of a trace.

    The router says where to send spans, so that there is one setting, and a change of it starts no replica anew.

    Attributes:
        parent: The call, as a W3C ``traceparent``.
        target: Where the replica is to send its spans (:mod:`traces.target`); "" if it is to make none.
    """

    parent: str
    target: str = ""
