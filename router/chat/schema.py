"""The chat request's JSON beyond ``router.conversation.fields``: its messages, and how it spells what all formats have.

What the fields mean together is in ``router.chat.request``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, FailFast, Field

from router.asgi.validation import Checked, UnicodeText
from router.conversation.fields import (
    MAX_MESSAGES,
    MAX_PARTS,
    Effort,
    MaxTokens,
    ModelBody,
    ResponseFormat,
    Url,
    one_given,
    optional,
)
from vlm.types import MAX_CHOICES


class TextPart(Checked):
    """Text."""

    type: Literal["text"]
    text: UnicodeText


class ImageUrl(Checked):
    """Where an image is: a URL, or an uploaded file in its place."""

    model_config = ConfigDict(json_schema_extra=one_given("url", "file_id"))

    url: Url | None = None
    file_id: str | None = Field(default=None, description="The id of an uploaded file of the caller.")
    detail: str | None = Field(default=None, description="Accepted and ignored.")


class ImagePart(Checked):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageUrl


class FileFields(Checked):
    """An uploaded file, or its content."""

    model_config = ConfigDict(json_schema_extra=one_given("file_id", "file_data"))

    file_id: str | None = Field(default=None, description="The id of an uploaded file of the caller.")
    file_data: Url | None = Field(default=None, description="A data URL with base64.")
    filename: str | None = Field(default=None, description="Accepted and ignored.")


class FilePart(Checked):
    """An image as a file."""

    type: Literal["file"]
    file: FileFields


def _as_parts(content: object) -> object:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [] if content is None else content


Part = Annotated[TextPart | ImagePart | FilePart, Field(discriminator="type")]
# Without FailFast pydantic would keep an error for each bad item; lists within lists may hold very many.
PartList = Annotated[list[Part], Field(max_length=MAX_PARTS)]
ContentParts = Annotated[PartList, FailFast(), BeforeValidator(_as_parts, json_schema_input_type=str | PartList | None)]


class Message(Checked):
    """A message that is read: the last of the user's, for its text, or the user's newest with an image, for that."""

    role: Literal["system", "developer", "user", "assistant"]
    content: ContentParts = Field(default_factory=list)


class StreamOptions(Checked):
    """Options of a stream."""

    include_usage: bool | None = Field(
        default=None, description="Send one more event, with usage.", json_schema_extra={"default": False}
    )


class ChatBody(ModelBody):
    """The body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], FailFast(), Field(min_length=1, max_length=MAX_MESSAGES)] = Field(
        description="The conversation. Its last user message is the prompt, and the newest user message with an image "
        "has the images, up to 16. All others are skipped, whatever they hold."
    )
    stream_options: StreamOptions | None = optional("Only with stream.")
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = optional(
        "Number of answers. Above 1 it cannot be combined with tasks, several labels or several images.", default=1
    )
    max_tokens: MaxTokens | None = optional("Maximum number of tokens to generate, reasoning included.")
    max_completion_tokens: MaxTokens | None = optional("The same; it wins where both are sent.")
    logprobs: bool | None = optional("Report the log-probability of each token.", default=False)
    reasoning_effort: Effort | None = optional(
        "Above minimal, a model that can reason does so before it answers a question."
    )
    response_format: ResponseFormat | None = optional("The form of the content.", default={"type": "text"})
