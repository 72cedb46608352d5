"""Moondream's API as formats of the endpoint, one for each route: see ``router.asgi.format``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from router.asgi.format import Demand, EventWriter
from router.charges import cost_of
from router.config import RouterConfig
from router.moondream.events import SegmentEvents, TextEvents
from router.moondream.request import ParsedMoondream, build_request, parse_request
from router.moondream.response import Answerer, Json
from router.moondream.schema import BODIES
from vlm.errors import VlmError
from vlm.types import Completion, Request

ROUTES = tuple(BODIES)
"""The last part of each route's path."""


class MoondreamFormat:
    """Reads requests of one of Moondream's routes."""

    def __init__(self, task: str, config: RouterConfig) -> None:
        """``task`` is one of ROUTES."""
        self._task = task
        self._config = config

    def parse(self, body: bytes) -> ParsedMoondream:
        """See :class:`~router.asgi.format.Format`."""
        return parse_request(self._task, body, self._config)

    def demand(self, parsed: ParsedMoondream) -> Demand:
        """See :class:`~router.asgi.format.Format`."""
        return Demand(parsed.model, images=len(parsed.images), tasks=(self._task,), max_tokens=parsed.max_tokens)

    def build(self, parsed: ParsedMoondream, images: Sequence[bytes], request_id: str) -> BuiltMoondream:
        """See :class:`~router.asgi.format.Format`."""
        request = build_request(parsed, images)
        costs = partial(cost_of, self._config.price_list, request.model, len(images))
        return BuiltMoondream(Answerer(request, request_id, costs))


@dataclass(frozen=True, slots=True)
class BuiltMoondream:
    """A request and the form of its answer; see :class:`~router.asgi.format.BuiltRequest`."""

    answerer: Answerer

    @property
    def model(self) -> str:
        """Canonical name of the model."""
        return self.answerer.request.model

    @property
    def request(self) -> Request:
        """The request to the model."""
        return self.answerer.request.request

    @property
    def stream(self) -> bool:
        """Whether the answer goes out as events."""
        return self.request.stream

    def response_json(self, completion: Completion) -> Json:
        """The body of a whole answer."""
        return self.answerer.whole(completion)

    def event_writer(self) -> EventWriter:
        """The writer of a streamed answer."""
        return (
            SegmentEvents(self.answerer) if self.answerer.request.task.name == "segment" else TextEvents(self.answerer)
        )

    def located(self, error: VlmError) -> VlmError:
        """``error`` with the path of a field of the body."""
        return self.answerer.request.located(error)
