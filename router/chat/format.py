"""OpenAI's chat completions as a format of the endpoint: see ``router.asgi.format``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.asgi.format import Demand
from router.chat.events import EventWriter
from router.chat.request import parse_chat
from router.chat.response import ChatHead, Json, completion_json
from router.composition.routing_report import Report
from router.composition.wanted import Wanted
from router.config import RouterConfig
from router.conversation.reasoning import with_effort
from router.conversation.request import BuiltConversation, ParsedConversation, build_request, demand_of
from router.conversation.several import alone, staged, unasked, wanted_of
from vlm.types import Box, Completion

EFFORT = "reasoning_effort"


class ChatFormat:
    """Reads requests of ``POST /v1/chat/completions``."""

    def __init__(self, config: RouterConfig) -> None:
        self._config = config

    def parse(self, body: bytes) -> ParsedConversation:
        """See :class:`~router.asgi.format.Format`."""
        return parse_chat(body, self._config)

    def demand(self, parsed: ParsedConversation) -> Demand:
        """See :class:`~router.asgi.format.Format`."""
        return demand_of(parsed, self._config)

    def build(self, parsed: ParsedConversation, images: Sequence[bytes], request_id: str) -> BuiltChat:
        """See :class:`~router.asgi.format.Format`."""
        asked = build_request(parsed, images, self._config)
        asked = with_effort(asked, parsed, EFFORT)
        return BuiltChat(asked, ChatHead(asked.meta(request_id), self._config.system_fingerprint))

    def wanted(self, parsed: ParsedConversation) -> Wanted | None:
        """See :class:`~router.composition.conductor.Composing`."""
        return wanted_of(parsed, self._config)

    def alone(
        self, parsed: ParsedConversation, model: str, report: Report, *, judged: bool = False
    ) -> ParsedConversation:
        """See :class:`~router.composition.conductor.Composing`."""
        return alone(parsed, model, report, self._config, judged=judged)

    def staged(self, parsed: ParsedConversation, stage: int, report: Report, part: Box | None) -> ParsedConversation:
        """See :class:`~router.composition.conductor.Composing`."""
        return staged(parsed, stage, report, self._config, part)

    def unasked(self, parsed: ParsedConversation, model: str, report: Report, request_id: str) -> BuiltChat:
        """See :class:`~router.composition.conductor.Composing`."""
        return self.build(unasked(parsed, model, report, self._config), (), request_id)


@dataclass(frozen=True, slots=True)
class BuiltChat(BuiltConversation):
    """A chat request.

    Attributes:
        head: What its answer repeats.
    """

    head: ChatHead

    def response_json(self, completion: Completion) -> Json:
        """The body of a whole answer."""
        return completion_json(completion, self.head, self.asked.options)

    def event_writer(self) -> EventWriter:
        """The writer of a streamed answer."""
        n = len(self.head.models) or self.asked.request.n
        return EventWriter(self.head, self.asked.options, self.asked.include_usage, n)
