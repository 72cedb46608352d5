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


HAIR = 0.01
"""How far outside the image a location may be, as a share of the image's side: it then means the edge. Sums of rounded
numbers end there, and so do boxes that other models give. What is farther away is meant for another image."""


def _within(share: float) -> float:
    if not -HAIR <= share <= 1 + HAIR:
        raise PydanticCustomError("outside", "must be from 0 to 1")
    return min(max(share, 0.0), 1.0)


Share = Annotated[float, Field(ge=0, le=1)]
Coordinate = Annotated[float, AfterValidator(_within)]
SharePair = Annotated[list[Coordinate], Field(min_length=2, max_length=2)]
ShareCorners = Annotated[list[Coordinate], Field(min_length=4, max_length=4)]
PixelPair = Annotated[list[float], Field(min_length=2, max_length=2)]
PixelCorners = Annotated[list[float], Field(min_length=4, max_length=4)]


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
    description: str | None = None
    strict: bool | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseFormat(Checked):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


MaxTokens = Annotated[int, Field(ge=1, lt=2**31)]
TokenId = Annotated[str, AfterValidator(_token_id)]
Biases = Annotated[dict[TokenId, float], Field(max_length=MAX_BIASES)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
AnyTask = Annotated[TaskBody, BeforeValidator(_as_task)]
AnyTasks = Annotated[list[AnyTask], Field(min_length=1, max_length=MAX_TASKS)]


# The keys of vlm.grounding_formats.FORMATS; a test compares them.
GroundingFormat = Literal["moondream", "qwen", "roboflow", "coco", "florence", "lmms-eval"]


class ModelBody(Checked):
    """What every format of conversations takes: the model, how its tokens are chosen, and our own fields."""

    model: Word
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[list[Word], Field(max_length=MAX_STOPS), BeforeValidator(_as_stops)] | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | None = None
    top_logprobs: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: Biases | None = None
    top_k: int | None = None
    min_p: float | None = None
    task: AnyTask | None = None
    tasks: AnyTasks | None = None
    include_raw: bool | None = None
    grounding_format: GroundingFormat | None = None
    drop_params: bool | None = None


class ChatBody(ModelBody):
    """The body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], FailFast(), Field(min_length=1, max_length=MAX_MESSAGES)]
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    reasoning_effort: Effort | None = None
    response_format: ResponseFormat | None = None
