"""The routes whose requests go to a model: the format of each, and what all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp

from router.admission.hold import Hold
from router.admission.rule import Admission
from router.asgi.endpoint import Endpoint
from router.asgi.format import Conductor as Conducting
from router.asgi.format import Format, ImageLoader, ParsedT
from router.asgi.metering import Meter
from router.backends.base import Backend
from router.chat.format import ChatFormat
from router.composition.conductor import Conductor
from router.composition.planner import Planner
from router.config import RouterConfig
from router.moondream.format import ROUTES, MoondreamFormat
from router.openapi.chat import CHAT
from router.openapi.moondream import MOONDREAM
from router.openapi.operation import Operation
from router.openapi.responses import RESPONSES
from router.responses.format import ResponsesFormat

CHAT_PATH, RESPONSES_PATH = "/v1/chat/completions", "/v1/responses"
OPERATIONS: Mapping[str, Operation] = {
    CHAT_PATH: CHAT,
    RESPONSES_PATH: RESPONSES,
    **{f"/v1/{name}": MOONDREAM[name] for name in ROUTES},
}
"""What the document says of each, by path."""
MODEL_PATHS = tuple(OPERATIONS)


@dataclass(frozen=True, slots=True)
class Shared:
    """What all endpoints of a router have in common; see :class:`~router.asgi.endpoint.Endpoint`."""

    backend: Backend
    images: ImageLoader
    config: RouterConfig
    meter: Meter
    admission: Admission
    hold: Hold

    def endpoint(
        self, request_format: Format[ParsedT], conductor: Conducting[ParsedT] | None = None
    ) -> Endpoint[ParsedT]:
        """The endpoint of a format."""
        return Endpoint(
            request_format,
            self.backend,
            self.images,
            self.config,
            self.meter,
            admission=self.admission,
            hold=self.hold,
            conductor=conductor,
        )


def model_endpoints(shared: Shared, planner: Planner) -> dict[str, ASGIApp]:
    """The endpoint of each path."""
    config = shared.config
    chats, responses = ChatFormat(config), ResponsesFormat(config)
    return {
        CHAT_PATH: shared.endpoint(chats, Conductor(chats, planner)),
        RESPONSES_PATH: shared.endpoint(responses, Conductor(responses, planner)),
        **{f"/v1/{name}": shared.endpoint(MoondreamFormat(name, config)) for name in ROUTES},
    }
