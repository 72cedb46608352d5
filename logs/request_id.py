"""The id of the request that is being worked on, for every line that is logged meanwhile."""

from __future__ import annotations

from contextvars import ContextVar

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""Empty where no request is worked on. Each request runs in a task of its own, in the router as in a replica, and so do
the tasks and threads that asyncio starts for it: it is set once and never reset."""
