"""OpenAI's chat completions as a format of the endpoint: see ``router.asgi.format``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.chat.events import EventWriter
from router.chat.reasoning import with_effort
from router.chat.request import Chat, ParsedChat, build_chat, parse_chat
from router.chat.response import ChatHead, Json, completion_json
from router.config import RouterConfig
from vlm.errors import VlmError
from vlm.types import Completion, Request

EFFORT = "reasoning_effort"


class ChatFormat:
    """Reads requests of ``POST /v1/chat/completions``."""

    def __init__(self, config: RouterConfig) -> None:
        self._config = config

    def parse(self, body: bytes) -> ParsedChat:
        """See :class:`~router.asgi.format.Format`."""
        return parse_chat(body, self._config)

    def build(self, parsed: ParsedChat, images: Sequence[bytes], request_id: str) -> BuiltChat:
        """See :class:`~router.asgi.format.Format`."""
        chat = build_chat(parsed, images, self._config)
        chat = with_effort(chat, parsed.question.prompt, parsed.effort, EFFORT)
        return BuiltChat(chat, ChatHead(chat.meta(request_id), self._config.system_fingerprint))


@dataclass(frozen=True, slots=True)
class BuiltFromChat:
    """What of :class:`~router.asgi.format.BuiltRequest` is the same for every format that spells chat in its own way.

    Attributes:
        chat: The request, as chat has it.
    """

    chat: Chat

    @property
    def model(self) -> str:
        """Canonical name of the model."""
        return self.chat.model

    @property
    def request(self) -> Request:
        """The request to the model."""
        return self.chat.request

    @property
    def stream(self) -> bool:
        """Whether the answer goes out as events."""
        return self.chat.stream

    def located(self, error: VlmError) -> VlmError:
        """``error`` with the path of a field of the body."""
        return self.chat.located(error)


@dataclass(frozen=True, slots=True)
class BuiltChat(BuiltFromChat):
    """A chat request.

    Attributes:
        head: What its answer repeats.
    """

    head: ChatHead

    def response_json(self, completion: Completion) -> Json:
        """The body of a whole answer."""
        return completion_json(completion, self.head, self.chat.options)

    def event_writer(self) -> EventWriter:
        """The writer of a streamed answer."""
        return EventWriter(self.head, self.chat.options, self.chat.include_usage, self.chat.request.n)
