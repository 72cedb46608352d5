"""The JSON of a request for a response: which fields exist, their types and their ranges.

What the fields mean together is in ``router.responses.request``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, FailFast, Field, JsonValue, StringConstraints

from router.asgi.validation import Checked, UnicodeText
from router.conversation.fields import MAX_MESSAGES, MAX_PARTS, Effort, MaxTokens, ModelBody, Word

MAX_METADATA = 16
"""Number of entries of ``metadata``, as at OpenAI: they are part of every answer."""
MAX_METADATA_KEY = 64
"""Characters of a key of ``metadata``, as at OpenAI."""
MAX_METADATA_VALUE = 512
"""Characters of a value of ``metadata``, as at OpenAI."""
MAX_INCLUDES = 16
"""Number of values of ``include``; OpenAI has about half as many."""


class InputText(Checked):
    type: Literal["input_text"]
    text: UnicodeText


class InputImage(Checked):
    type: Literal["input_image"]
    image_url: str | None = None
    file_id: Word | None = None
    detail: str | None = None


class InputFile(Checked):
    """An image as a file; a document is refused once its bytes say that it is one."""

    type: Literal["input_file"]
    file_id: Word | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None


def _as_parts(content: object) -> object:
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}]
    return [] if content is None else content


def _as_items(value: object) -> object:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


InputPart = Annotated[InputText | InputImage | InputFile, Field(discriminator="type")]
# Without FailFast pydantic would keep an error for each bad item; lists within lists may hold very many.
InputParts = Annotated[list[InputPart], FailFast(), Field(max_length=MAX_PARTS), BeforeValidator(_as_parts)]


class InputMessage(Checked):
    """A message; of the other kinds of items, which are history, nothing is read."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: InputParts = Field(default_factory=list)


class PlainFormat(Checked):
    type: Literal["text", "json_object"]


class SchemaFormat(Checked):
    type: Literal["json_schema"]
    name: Word
    schema_: dict[str, JsonValue] = Field(alias="schema")  # checked within, because the answer repeats it
    strict: bool | None = None
    description: Annotated[str, StringConstraints(max_length=4096)] | None = None


class TextSettings(Checked):
    format: Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Checked):
    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class StreamOptions(Checked):
    include_obfuscation: bool | None = None


MetadataKey = Annotated[str, StringConstraints(max_length=MAX_METADATA_KEY)]
MetadataValue = Annotated[str, StringConstraints(max_length=MAX_METADATA_VALUE)]


class ResponsesBody(ModelBody):
    """The body of ``POST /v1/responses``."""

    input: Annotated[
        list[InputMessage], FailFast(), Field(min_length=1, max_length=MAX_MESSAGES), BeforeValidator(_as_items)
    ]
    instructions: Any = None
    max_output_tokens: MaxTokens | None = None
    text: TextSettings | None = None
    reasoning: Reasoning | None = None
    include: Annotated[list[Word], Field(max_length=MAX_INCLUDES)] | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=MAX_METADATA)] | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    background: bool | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    previous_response_id: Any = None
    conversation: Any = None
    prompt: Any = None
