"""Where a request comes from, for those who look after it on its way: logs, traces, and who chooses its replica."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """What goes along with a request and changes nothing in its answer.

    Attributes:
        request_id: The id that the client sees, and that every line in a log about the request carries.
        trouble: What ended the attempt before this one (``lost``, ``closed``, ``full`` or ``not ready``); None for the
            first attempt.
        traceparent: The span above, as W3C's header of that name writes it; None where the request is not traced.
    """

    request_id: str
    trouble: str | None = None
    traceparent: str | None = None
