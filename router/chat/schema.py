"""The chat request's JSON: which fields exist, their types and ranges, and what is said of a wrong one.

The only user of pydantic. Knows nothing of what the fields mean together, of answers, or of models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from vlm.errors import InvalidRequest
from vlm.types import MAX_TASKS, CaptionLength

Json = dict[str, Any]

MAX_LABELS = 64
MAX_REFERENCES = 64
MAX_STOPS = 4


class Checked(BaseModel):
    """The base of every body: unknown keys are ignored, types are not converted, no NaN."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


def _encodable(text: str) -> str:
    """JSON can spell lone surrogates, which no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("string_unicode", "no Unicode text") from error
    return text


class TextPart(Checked):
    type: Literal["text"]
    text: Annotated[str, AfterValidator(_encodable)]


class ImageUrl(Checked):
    url: str
    detail: str | None = None


class ImagePart(Checked):
    type: Literal["image_url"]
    image_url: ImageUrl


def _as_parts(content: object) -> object:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [] if content is None else content


def _as_stops(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _as_task(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


Word = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
# pydantic keeps an error for each bad item that a list may hold; FailFast keeps one, for lists are within lists.
ContentParts = Annotated[list[Part], FailFast(), Field(max_length=64), BeforeValidator(_as_parts)]


class Message(Checked):
    role: Literal["system", "developer", "user", "assistant"]
    content: ContentParts = []


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
    labels: Annotated[list[Word], FailFast(), Field(max_length=MAX_LABELS)] = []
    text: Annotated[str, StringConstraints(max_length=4096)] | None = None
    region: Region | None = None
    length: CaptionLength = "normal"
    max_objects: Annotated[int, Field(ge=1, le=1000)] | None = None
    threshold: Share | None = None
    reasoning: bool = False
    references: Annotated[list[Reference], FailFast(), Field(max_length=MAX_REFERENCES)] = []


class StreamOptions(Checked):
    include_usage: bool | None = None


class JsonSchema(Checked):
    name: Word


class ResponseFormat(Checked):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


AnyTask = Annotated[TaskBody, BeforeValidator(_as_task)]
AnyTasks = Annotated[list[AnyTask], Field(min_length=1, max_length=MAX_TASKS)]


class ChatBody(Checked):
    """The body of ``POST /v1/chat/completions``."""

    model: Word
    messages: Annotated[list[Message], FailFast(), Field(min_length=1, max_length=256)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
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
    response_format: ResponseFormat | None = None
    task: AnyTask | None = None
    tasks: AnyTasks | None = None
    include_raw: bool | None = None
    drop_params: bool | None = None


# What is said of a wrong field

BodyT = TypeVar("BodyT", bound=BaseModel)


def validated(kind: type[BodyT], raw: Json) -> BodyT:
    """``raw`` as a body.

    Raises:
        InvalidRequest: The first wrong field, by its path.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _as_invalid(first, raw) from error


_RULES = {
    "missing": ("is required", "missing_required_parameter"),
    "extra_forbidden": ("is not supported", "unsupported_parameter"),
    "union_tag_invalid": ("must have a type of: text, image_url", "invalid_value"),
    "union_tag_not_found": ("must be an object with a type of: text, image_url", "invalid_value"),
    "model_type": ("must be an object", "invalid_type"),
    "string_unicode": ("must be valid Unicode text", "invalid_value"),
    "too_short": ("has too few items", "invalid_value"),
    "too_long": ("has too many items", "invalid_value"),
    "string_too_short": ("is too short", "invalid_value"),
    "string_too_long": ("is too long", "string_above_max_length"),
    "model_attributes_type": ("must be an object", "invalid_type"),
}


def _as_invalid(fault: ErrorDetails, raw: Json) -> InvalidRequest:
    path = _path(fault, raw)
    code = "invalid_type" if fault["type"].endswith("_type") else "invalid_value"
    rule, code = _RULES.get(fault["type"], (fault["msg"].replace("Input should be", "must be"), code))
    return InvalidRequest(f"{path[:256]}: {rule}.", path[:256], code)


def _path(fault: ErrorDetails, raw: Json) -> str:
    """``messages[0].content[1].image_url.url``; steps that exist only in pydantic's view of the body are left out."""
    path = ""
    here: Any = raw
    *_, last = fault["loc"]
    for step in fault["loc"]:
        if isinstance(here, list) and isinstance(step, int):
            path, here = f"{path}[{step}]", here[step]
        elif isinstance(here, dict) and (step in here or (step == last and fault["type"] == "missing")):
            path, here = f"{path}.{step}" if path else str(step), here.get(step)
    return path
