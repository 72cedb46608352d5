"""What a conversation asks, in whichever format it came: a text, its images, and where the body has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.asgi.format import ImageReference
from router.config import RouterConfig
from router.conversation.prompt import Prompt, check_length, has_data_url, read_prompt
from vlm.errors import InvalidRequest
from vlm.types import MAX_IMAGES


@dataclass(frozen=True, slots=True)
class Question:
    """What a conversation asks, and where its body says so.

    Attributes:
        prompt: The text of the last user message.
        prompt_param: Path of that text.
        unused_text: Paths of the parts of it that are not wholly used.
        images: The images of the newest user message with any.
        conversation: Path of the conversation, for errors about what it lacks.
        how_to_send: What to do about an image that it lacks.
    """

    prompt: Prompt
    prompt_param: str
    unused_text: tuple[str, ...]
    images: tuple[ImageReference, ...]
    conversation: str
    how_to_send: str


def prompt_of(texts: Sequence[tuple[int, str]], path: str, config: RouterConfig, example: str) -> Prompt:
    """The prompt of the last user message.

    Args:
        texts: The texts of its parts, each with its position.
        path: Where the message's content is.
        config: The router's settings.
        example: A part with an image, for those who send one as text.

    Raises:
        InvalidRequest: The text is too long, or has an image in it.
    """
    if any(has_data_url(text) for _, text in texts):
        raise InvalidRequest(
            "The text has an image in it, as a data URL, which models cannot read as words. Send the image as a part "
            f"of its own: {example}.",
            path,
            "invalid_value",
        )
    check_length(sum(len(text) for _, text in texts), path, config)
    return read_prompt(texts)


def unused_parts(prompt: Prompt, path: str, content: object) -> tuple[str, ...]:
    """Paths of the parts of a message that are not wholly used; its ``content`` is at ``path``."""
    return tuple(f"{path}[{part}]" if isinstance(content, list) else path for part in prompt.unused)


def check_number(images: tuple[ImageReference, ...], path: str) -> tuple[ImageReference, ...]:
    """The same ``images``, of the message whose content is at ``path``.

    Raises:
        InvalidRequest: There are more than a request takes.
    """
    if len(images) > MAX_IMAGES:
        message = f"The message has {len(images)} images; a request takes at most {MAX_IMAGES}."
        raise InvalidRequest(message, path, "invalid_value")
    return images


def no_user_message(conversation: str) -> InvalidRequest:
    """The error for a conversation in which nobody asks anything."""
    return InvalidRequest("The request has no message whose role is user.", conversation, "invalid_value")
