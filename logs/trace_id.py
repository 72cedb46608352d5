"""The id of the trace that the request which is worked on belongs to, for every line that is logged meanwhile."""

from __future__ import annotations

from contextvars import ContextVar

TRACE_ID: ContextVar[str] = ContextVar("trace_id", default="")
"""Empty where traces are off, or no request is worked on. Set once and never reset, as the request's id."""
