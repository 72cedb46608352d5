"""OpenAI's Responses as a format of the endpoint: see ``router.asgi.format``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from router.asgi.format import Demand
from router.composition.routing_report import Report
from router.composition.wanted import Wanted
from router.config import RouterConfig
from router.conversation.reasoning import reasons, with_effort
from router.conversation.request import BuiltConversation, build_request, demand_of
from router.conversation.several import alone, staged, unasked, wanted_of
from router.responses.events import EventWriter
from router.responses.request import ParsedResponses, parse_responses
from router.responses.response import Json, ResponseHead, echo_of, response_json
from vlm.errors import VlmError
from vlm.types import Box, Completion

EFFORT = "reasoning.effort"
SUMMARY = "reasoning.summary"


class ResponsesFormat:
    """Reads requests of ``POST /v1/responses``."""

    def __init__(self, config: RouterConfig) -> None:
        self._config = config

    def parse(self, body: bytes) -> ParsedResponses:
        """See :class:`~router.asgi.format.Format`."""
        return parse_responses(body, self._config)

    def demand(self, parsed: ParsedResponses) -> Demand:
        """See :class:`~router.asgi.format.Format`."""
        return demand_of(parsed.conversation, self._config)

    def build(self, parsed: ParsedResponses, images: Sequence[bytes], request_id: str) -> BuiltResponse:
        """See :class:`~router.asgi.format.Format`."""
        asked = build_request(parsed.conversation, images, self._config)
        asked = with_effort(asked, parsed.conversation, EFFORT)
        in_summary = parsed.body.reasoning is not None and parsed.body.reasoning.summary is not None
        if in_summary and not reasons(asked.request):
            asked = replace(asked, ignored=(*asked.ignored, SUMMARY))
        return BuiltResponse(asked, ResponseHead(asked.meta(request_id), echo_of(parsed.body), in_summary))

    def wanted(self, parsed: ParsedResponses) -> Wanted | None:
        """See :class:`~router.composition.conductor.Composing`."""
        return wanted_of(parsed.conversation, self._config)

    def alone(self, parsed: ParsedResponses, model: str, report: Report, *, judged: bool = False) -> ParsedResponses:
        """See :class:`~router.composition.conductor.Composing`."""
        conversation = alone(parsed.conversation, model, report, self._config, judged=judged)
        return replace(parsed, conversation=conversation)

    def staged(self, parsed: ParsedResponses, stage: int, report: Report, part: Box | None) -> ParsedResponses:
        """See :class:`~router.composition.conductor.Composing`."""
        return replace(parsed, conversation=staged(parsed.conversation, stage, report, self._config, part))

    def unasked(self, parsed: ParsedResponses, model: str, report: Report, request_id: str) -> BuiltResponse:
        """See :class:`~router.composition.conductor.Composing`."""
        conversation = unasked(parsed.conversation, model, report, self._config)
        return self.build(replace(parsed, conversation=conversation), (), request_id)


@dataclass(frozen=True, slots=True)
class BuiltResponse(BuiltConversation):
    """A request for a response.

    Attributes:
        head: What the response repeats.
    """

    head: ResponseHead

    def response_json(self, completion: Completion) -> Json:
        """The body of a whole answer."""
        return response_json(completion, self.head, self.asked.options)

    def event_writer(self) -> EventWriter:
        """The writer of a streamed answer."""
        return EventWriter(self.head, self.asked.options)

    def located(self, error: VlmError) -> VlmError:
        """``error`` with the path of a field of the body."""
        found = BuiltConversation.located(self, error)
        param = "max_output_tokens" if found.param == "max_tokens" else found.param
        return type(found)(found.message, param, found.code)
