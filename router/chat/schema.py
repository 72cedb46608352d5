"""The chat request's JSON: which fields exist, their types and their ranges.

What the fields mean together is in ``router.chat.request``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, FailFast, Field, StringConstraints
from pydantic_core import PydanticCustomError

from router.asgi.validation import Checked, UnicodeText
from vlm.sampling import MAX_BIASES
from vlm.types import MAX_CHOICES, MAX_TASKS, CaptionLength

MAX_LABELS = 64
MAX_REFERENCES = 64
MAX_STOPS = 4
MAX_MESSAGES = 4096
"""Chat interfaces resend the whole conversation; all but two of its messages are skipped. The number of items in the
body bounds the work in any case."""


class TextPart(Checked):
    type: Literal["text"]
    text: UnicodeText


class ImageUrl(Checked):
    url: str | None = None
    file_id: str | None = None
    detail: str | None = None


class ImagePart(Checked):
    type: Literal["image_url"]
    image_url: ImageUrl


class FileFields(Checked):
    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


class FilePart(Checked):
    type: Literal["file"]
    file: FileFields


def _as_parts(content: object) -> object:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [] if content is None else content


def _as_stops(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _as_task(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _token_id(key: str) -> str:
    if not re.fullmatch("0|[1-9][0-9]{0,9}", key):
        raise PydanticCustomError("token_id", "must have token ids as keys, whole numbers such as 17")
    return key


Word = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Part = Annotated[TextPart | ImagePart | FilePart, Field(discriminator="type")]
# Without FailFast pydantic would keep an error for each bad item; lists within lists may hold very many.
ContentParts = Annotated[list[Part], FailFast(), Field(max_length=64), BeforeValidator(_as_parts)]


class Message(Checked):
    role: Literal["system", "developer", "user", "assistant"]
    content: ContentParts = Field(default_factory=list)


Share = Annotated[float, Field(ge=0, le=1)]
Pixel = Annotated[float, Field(ge=0)]
SharePair = Annotated[list[Share], Field(min_length=2, max_length=2)]
ShareCorners = Annotated[list[Share], Field(min_length=4, max_length=4)]
PixelPair = Annotated[list[Pixel], Field(min_length=2, max_length=2)]
PixelCorners = Annotated[list[Pixel], Field(min_length=4, max_length=4)]


class Region(Checked):
    """A box: normalised, or in pixels of the upright image."""

    model_config = ConfigDict(extra="forbid")

    box: ShareCorners | None = None
    box_px: PixelCorners | None = None


class Reference(Region):
    """A box or a point, in either frame."""

    point: SharePair | None = None
    point_px: PixelPair | None = None


class TaskBody(Checked):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    labels: Annotated[list[Word], FailFast(), Field(max_length=MAX_LABELS)] = Field(default_factory=list)
    text: Annotated[str, StringConstraints(max_length=4096)] | None = None
    region: Region | None = None
    length: CaptionLength = "normal"
    max_objects: Annotated[int, Field(ge=1, le=1000)] | None = None
    threshold: Share | None = None
    reasoning: bool = False
    references: Annotated[list[Reference], FailFast(), Field(max_length=MAX_REFERENCES)] = Field(default_factory=list)


class StreamOptions(Checked):
    include_usage: bool | None = None


class NamedSchema(Checked):
    name: Word
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseFormat(Checked):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


TokenId = Annotated[str, AfterValidator(_token_id)]
Biases = Annotated[dict[TokenId, float], Field(max_length=MAX_BIASES)]
AnyTask = Annotated[TaskBody, BeforeValidator(_as_task)]
AnyTasks = Annotated[list[AnyTask], Field(min_length=1, max_length=MAX_TASKS)]


# The keys of vlm.grounding_formats.FORMATS; a test compares them.
GroundingFormat = Literal["moondream", "qwen", "roboflow", "coco", "florence", "lmms-eval"]


class ChatBody(Checked):
    """The body of ``POST /v1/chat/completions``."""

    model: Word
    messages: Annotated[list[Message], FailFast(), Field(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[list[Word], Field(max_length=MAX_STOPS), BeforeValidator(_as_stops)] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: Biases | None = None
    top_k: int | None = None
    min_p: float | None = None
    response_format: ResponseFormat | None = None
    task: AnyTask | None = None
    tasks: AnyTasks | None = None
    include_raw: bool | None = None
    grounding_format: GroundingFormat | None = None
    drop_params: bool | None = None
