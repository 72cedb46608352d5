"""The route ``GET /v1/status``: what this router sees of its models, without addresses, callers or requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from router.admission.rule import Admission, ModelLoad
from router.asgi.errors import json_response
from router.backends.base import Backend, ModelStatus, not_ready
from router.status.recent_errors import RecentErrors, SeenError

Json = dict[str, Any]


class StatusReport:
    """Joins what the backend, admission and the errors say; the backend asks the cluster at most once a second."""

    def __init__(
        self,
        backend: Backend,
        admission: Admission,
        errors: RecentErrors,
        required_models: Sequence[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``clock`` is Unix time."""
        self._backend = backend
        self._admission = admission
        self._errors = errors
        self._required = required_models
        self._clock = clock
        self._started_at = clock()

    async def answer(self, _request: Request) -> Response:
        """``GET /v1/status``."""
        return json_response(self.body(await self._backend.models()), headers={"cache-control": "no-store"})

    def body(self, statuses: Sequence[ModelStatus]) -> Json:
        """The answer for these models."""
        missing = not_ready(statuses, self._required)
        known = [*statuses, *(status for status in missing if status not in statuses)]
        self._errors.forget_others(status.name for status in known)
        return {
            "object": "status",
            "ready": bool(statuses) and not missing,
            "started_at": int(self._started_at),
            "now": int(self._clock()),
            "models": [self._model(status) for status in known],
            "errors": [_error(one) for one in self._errors.of(None)],
        }

    def _model(self, status: ModelStatus) -> Json:
        load = self._admission.load(status.name)
        return {
            "id": status.name,
            "ready": status.ready,
            "required": status.name in self._required,
            "detail": status.detail,
            "replicas": [asdict(one) for one in status.replicas],
            **_load(load),
            "errors": [_error(one) for one in self._errors.of(status.name)],
        }


def _load(load: ModelLoad) -> Json:
    places = {"held": load.held, "worked_on": load.worked_on, "limit": load.limit}
    return {"places": places, "queue_s": None if load.queue_s is None else round(load.queue_s, 3)}


def _error(seen: SeenError) -> Json:
    return {"code": seen.code, "status": seen.status, "count": seen.count, "last_at": int(seen.last_at)}
