"""The body of a chat completion, checked and read as a conversation: its question, and which fields have no effect.

Native prompts pass through unchanged, because only the model's processor can interpret them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from router.asgi.body import read_object
from router.asgi.format import ImageReference
from router.asgi.validation import validated
from router.chat.image_parts import image_references
from router.chat.schema import ChatBody, ImagePart, Part, TextPart
from router.config import RouterConfig
from router.conversation.history import Spelling, Turn, read_turn, without_history
from router.conversation.ignored import IMPOSSIBLE, dropped_fields, some_of, unread_fields, unused_messages
from router.conversation.question import Question, check_number, no_user_message, prompt_of, unused_parts
from router.conversation.request import ParsedConversation, check_stream_options
from router.conversation.response_format import form_of, is_raw

Json = dict[str, Any]

SPELLING = Spelling(field="messages", text="text", images=("image_url", "file"))
SCHEMA = "response_format.json_schema.schema"
EXAMPLE = '{"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}'
HOW_TO_SEND = "Send it as an image_url part of a user message."


def parse_chat(body: bytes, config: RouterConfig) -> ParsedConversation:
    """The first phase of reading a request: what can be known without its image. CPU work only.

    Raises:
        InvalidRequest: With the path of the field at fault.
    """
    raw = read_object(body)
    turn = read_turn(raw, SPELLING)
    read = raw if turn is None else without_history(raw, turn)
    chat = validated(ChatBody, read)
    if turn is None:
        raise no_user_message("messages")
    dropped = dropped_fields(raw, chat, IMPOSSIBLE, config)
    check_stream_options(chat.stream_options, stream=bool(chat.stream))
    form = form_of(chat, chat.response_format, "response_format")
    unread = unread_fields(chat, read, IMPOSSIBLE)
    without_effect = [*unread, *_overruled(chat), *(f"{SCHEMA}.{name}" for name in form.beyond)]
    return ParsedConversation(
        body=chat,
        question=_question(raw, chat, turn, config),
        form=form,
        ignored=(*some_of(without_effect), *dropped, *unused_messages(raw, turn)),
        max_tokens=chat.max_completion_tokens or chat.max_tokens,
        n=chat.n or 1,
        logprobs=bool(chat.logprobs),
        include_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        effort=chat.reasoning_effort,
    )


def _overruled(chat: ChatBody) -> Iterator[str]:
    """Known fields that another one overrules, and the ``detail`` of images: each model has one resolution."""
    if chat.max_tokens is not None and chat.max_completion_tokens not in (None, chat.max_tokens):
        yield "max_tokens"
    if is_raw(chat) and chat.response_format is not None:
        yield "response_format"
    for number, message in enumerate(chat.messages):
        for at, part in enumerate(message.content):
            if isinstance(part, ImagePart) and part.image_url.detail not in (None, "auto"):
                yield f"messages[{number}].content[{at}].image_url.detail"


def _question(raw: Json, chat: ChatBody, turn: Turn, config: RouterConfig) -> Question:
    path = f"messages[{turn.text}].content"
    prompt = prompt_of(_texts(chat.messages[turn.text].content), path, config, EXAMPLE)
    unused = unused_parts(prompt, path, raw["messages"][turn.text].get("content"))
    return Question(prompt, path, unused, _images(chat, turn), "messages", HOW_TO_SEND)


def _images(chat: ChatBody, turn: Turn) -> tuple[ImageReference, ...]:
    """The images of the newest user message with any. Whether a request needs one, the model decides."""
    if turn.images is None:
        return ()
    path = f"messages[{turn.images}]"
    return check_number(image_references(chat.messages[turn.images], path), f"{path}.content")


def _texts(parts: Sequence[Part]) -> list[tuple[int, str]]:
    """The texts of a message's parts, each with its position."""
    return [(at, part.text) for at, part in enumerate(parts) if isinstance(part, TextPart)]
