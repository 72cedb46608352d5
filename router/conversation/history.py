"""Which messages of a conversation are the request: chat interfaces resend all of it with every question.

The request is the text of the last user message, and the images of the newest user message that has any. All other
messages are left as they are: their roles and contents are whatever other models and tools have made of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

USER = "user"


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a format spells a conversation: the field of its messages, and the types of parts with a text or an image."""

    field: str
    text: str
    images: tuple[str, ...]


_UNREAD: Json = {"role": "assistant"}
"""Stands for a message that is not read, so that the others keep their positions in the body."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The messages that are read, by their positions.

    Attributes:
        text: The last user message.
        images: The newest user message with an image; None where no message has one.
        spelling: How the conversation is spelled.
    """

    text: int
    images: int | None
    spelling: Spelling

    def unused(self, messages: list[Any]) -> list[int]:
        """Positions of the messages that are not used, or not wholly: the text beside an older image is not read."""
        return [at for at, message in enumerate(messages) if at != self.text and not self._is_used(at, message)]

    def _is_used(self, at: int, message: object) -> bool:
        return at == self.images and not any(_is_part(part, self.spelling.text) for part in _parts(message))


def read_turn(raw: Json, spelling: Spelling) -> Turn | None:
    """The messages of a body that are read; None where there is no user message, or no list of messages."""
    messages = raw.get(spelling.field)
    users = [at for at, message in enumerate(messages) if _is_user(message)] if isinstance(messages, list) else []
    if not isinstance(messages, list) or not users:
        return None
    with_images = [at for at in users if any(_is_part(part, *spelling.images) for part in _parts(messages[at]))]
    return Turn(users[-1], with_images[-1] if with_images else None, spelling)


def without_history(raw: Json, turn: Turn) -> Json:
    """The body with only those messages that are read, at their positions."""
    read, field = {turn.text, turn.images}, turn.spelling.field
    return {**raw, field: [one if at in read else _UNREAD for at, one in enumerate(raw[field])]}


def _is_user(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") == USER


def _parts(message: object) -> list[Any]:
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, list) else []


def _is_part(part: object, *kinds: str) -> bool:
    return isinstance(part, dict) and part.get("type") in kinds
