"""OpenAI's chat request, checked and turned into a ``vlm.types.Request``.

Owns the request's JSON: which fields exist, which are ignored, and which a small vision model can never honour.
The only user of pydantic. Knows nothing of answers, of models, or of how bytes arrive; native prompts pass through
word for word, because what they mean is the processor's to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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

from router.answers import Content, Shape
from router.config import RouterConfig
from router.images import read_image
from router.payload import read_object
from vlm.models.cards import canonical_name
from vlm.types import Box, CaptionLength, InvalidImage, InvalidRequest, Request, Sampling, Task, VlmError

Json = dict[str, Any]

MAX_REPORTED = 32
MAX_STOPS = 4
RAW_TASK = "raw"

IMPOSSIBLE: Mapping[str, tuple[object, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "n": (1,),
    "audio": (),
    "modalities": (["text"],),
    "prediction": (),
    "web_search_options": (),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "top_logprobs": (0,),
    "tasks": (),
    "models": (),
}
"""Known fields that cannot be honoured, and the values that ask for nothing."""


# Bodies: what pydantic checks


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
    """A list; of one that is too long, no more than shows it (FailFast cannot stand in a union)."""
    if isinstance(value, list):
        return value[: MAX_STOPS + 1]
    return [value] if isinstance(value, str) else value


def _as_task(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


Word = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
# FailFast: pydantic keeps an error for each bad item, and a body can hold millions.
ContentParts = Annotated[list[Part], FailFast(), Field(max_length=64), BeforeValidator(_as_parts)]


class Message(Checked):
    role: Literal["system", "developer", "user", "assistant"]
    content: ContentParts = []


class Region(Checked):
    model_config = ConfigDict(extra="forbid")

    box: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=4, max_length=4)]


class TaskBody(Checked):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    labels: Annotated[list[Word], FailFast(), Field(max_length=64)] = []
    text: Annotated[str, StringConstraints(max_length=4096)] | None = None
    region: Region | None = None
    length: CaptionLength = "normal"


class StreamOptions(Checked):
    include_usage: bool | None = None


class JsonSchema(Checked):
    name: Word


class ResponseFormat(Checked):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


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
    logprobs: bool | None = None
    response_format: ResponseFormat | None = None
    task: Annotated[TaskBody, BeforeValidator(_as_task)] | None = None
    include_raw: bool | None = None
    drop_params: bool | None = None


# What the rest of the router reads


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat request that can be sent to a model.

    Attributes:
        model: Canonical name.
        ignored: Fields of the body that change nothing.
        image_param, prompt_param: Where in the body the picture and the text were, for errors found later.
    """

    model: str
    request: Request
    shape: Shape
    stream: bool
    include_usage: bool
    ignored: tuple[str, ...]
    image_param: str
    prompt_param: str

    def located(self, error: VlmError) -> VlmError:
        """``error`` with the path in the body instead of the name of a ``Request`` field."""
        param = error.param
        if param == "prompt":
            param = self.prompt_param
        elif param == "image" or (param is None and isinstance(error, InvalidImage)):
            param = self.image_param
        return type(error)(error.message, param, error.code)


def read_chat(body: bytes, config: RouterConfig) -> Chat:
    """Check a request body from end to end. CPU work only; takes milliseconds for a large picture.

    Raises:
        InvalidRequest, InvalidImage: With the path of the field at fault.
    """
    raw = read_object(body)
    chat = _validated(ChatBody, raw)
    dropped = _impossible(raw, drop=bool(chat.drop_params))
    _check_stream_options(chat)
    content = _content(chat)
    image_param, image = _image(chat, config)
    prompt_param, prompt = _prompt(chat, config)
    return Chat(
        model=canonical_name(chat.model),
        request=Request(image, prompt, _task(chat.task), _sampling(chat), pieces=bool(chat.stream)),
        shape=Shape(content, include_raw=bool(chat.include_raw) or content == "raw", logprobs=bool(chat.logprobs)),
        stream=bool(chat.stream),
        include_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        ignored=_ignored(raw, chat, dropped),
        image_param=image_param,
        prompt_param=prompt_param,
    )


BodyT = TypeVar("BodyT", bound=BaseModel)


def _validated(kind: type[BodyT], raw: Json) -> BodyT:
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


# Fields that mean nothing here


def _impossible(raw: Json, *, drop: bool) -> list[str]:
    """Names of fields that ask for the impossible; an error unless the client lets them be dropped."""
    asked = [name for name, harmless in IMPOSSIBLE.items() if not _asks_for_nothing(raw.get(name), harmless)]
    if asked and not drop:
        raise InvalidRequest(
            f"{asked[0]} is not supported by these models; drop_params: true lets it be ignored.",
            asked[0],
            "unsupported_parameter",
        )
    return asked


def _asks_for_nothing(value: object, harmless: tuple[object, ...]) -> bool:
    """None, or one of ``harmless``; true is not 1, though Python finds them equal."""
    return value is None or (value in harmless and not isinstance(value, bool))


def _ignored(raw: Json, chat: ChatBody, dropped: list[str]) -> tuple[str, ...]:
    unknown = [
        name[:64]
        for name, value in raw.items()
        if value is not None and name not in IMPOSSIBLE and name not in ChatBody.model_fields
    ]
    last = _last_user(chat)
    unread = [f"messages[{at}]" for at, said in enumerate(chat.messages) if at != last and _texts(said)]
    return (*unknown[:MAX_REPORTED], *dropped, *unread[:MAX_REPORTED])


# What is asked, and in what shape the answer is wanted


def _check_stream_options(chat: ChatBody) -> None:
    if chat.stream_options is not None and not chat.stream:
        raise InvalidRequest("stream_options needs stream: true.", "stream_options", "invalid_value")


def _content(chat: ChatBody) -> Content:
    if chat.task is not None and chat.task.name == RAW_TASK:
        return "raw"
    wanted = chat.response_format
    if wanted is None or wanted.type == "text":
        return "answer"
    if wanted.type == "json_object":
        return "json"
    if wanted.json_schema is None or wanted.json_schema.name.lower() != "grounding":
        raise InvalidRequest(
            "response_format takes no JSON schema but the one named grounding.",
            "response_format",
            "unsupported_parameter",
        )
    return "grounding"


def _task(body: TaskBody | None) -> Task | None:
    if body is None or body.name == RAW_TASK:
        return None
    return Task(body.name, tuple(body.labels), body.text, _region(body.region), body.length)


def _region(region: Region | None) -> Box | None:
    if region is None:
        return None
    box = Box(*region.box)
    if box.x_min > box.x_max or box.y_min > box.y_max:
        raise InvalidRequest("task.region.box must be [x1, y1, x2, y2] with x1 <= x2 and y1 <= y2.",
                             "task.region.box", "invalid_value")  # fmt: skip
    return box


def _sampling(chat: ChatBody) -> Sampling:
    return Sampling(
        max_tokens=chat.max_completion_tokens or chat.max_tokens,
        temperature=chat.temperature,
        top_p=chat.top_p,
        seed=chat.seed,
        stop=tuple(chat.stop or ()),
        repetition_penalty=chat.repetition_penalty,
        no_repeat_ngram_size=chat.no_repeat_ngram_size,
        logprobs=bool(chat.logprobs),
    )


def _image(chat: ChatBody, config: RouterConfig) -> tuple[str, bytes]:
    """The one picture of all user messages, and its path."""
    found = dict(_image_urls(chat))
    if len(found) != 1:
        raise InvalidRequest(
            "The request has no image; one is needed as an image_url part of a user message."
            if not found
            else f"The request has {len(found)} images; these models take one.",
            "messages",
            "invalid_value",
        )
    ((param, url),) = found.items()
    return param, read_image(url, config.image_limits, param)


def _image_urls(chat: ChatBody) -> Iterator[tuple[str, str]]:
    for at, message in enumerate(chat.messages):
        for index, part in enumerate(message.content):
            if not isinstance(part, ImagePart):
                continue
            path = f"messages[{at}].content[{index}]"
            if message.role != "user":
                raise InvalidRequest("Images belong into user messages.", path, "invalid_value")
            yield f"{path}.image_url.url", part.image_url.url


def _prompt(chat: ChatBody, config: RouterConfig) -> tuple[str, str]:
    """The text of the last user message, and its path; several parts are lines."""
    last = _last_user(chat)
    param = f"messages[{last}].content"
    prompt = "\n".join(_texts(chat.messages[last]))
    if len(prompt) > config.max_prompt_chars:
        raise InvalidRequest(
            f"The text has {len(prompt)} characters; at most {config.max_prompt_chars} are accepted.",
            param,
            "string_above_max_length",
        )
    return param, prompt


def _texts(message: Message) -> list[str]:
    return [part.text for part in message.content if isinstance(part, TextPart)]


def _last_user(chat: ChatBody) -> int:
    """Index of the last user message; there is one, for a picture was found in it or in one before."""
    return max(at for at, message in enumerate(chat.messages) if message.role == "user")
