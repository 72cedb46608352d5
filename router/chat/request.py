"""OpenAI's chat request, checked and turned into a ``vlm.types.Request``.

Owns what its fields mean together, which are ignored, and which a small vision model can never honour. Knows nothing
of answers, of models, or of how bytes arrive; native prompts pass through word for word, because what they mean is the
processor's to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from router.asgi.body import read_object
from router.asgi.format import ImageReference
from router.chat.response import Content, ResponseOptions
from router.chat.schema import ChatBody, ImagePart, Message, TextPart, validated
from router.chat.tasks import Size, read_task
from router.config import RouterConfig
from router.images import upright_size_of
from vlm.errors import InvalidImage, InvalidRequest, VlmError
from vlm.models.cards import canonical_name
from vlm.types import Request, Sampling

Json = dict[str, Any]

MAX_REPORTED = 32
RAW_TASK = "raw"
HOW_TO_SEND = "Send it as an image_url part of a user message."

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
    "models": (),
}
"""Known fields that cannot be honoured, and the values that ask for nothing."""


# What the rest of the router reads


@dataclass(frozen=True, slots=True)
class ParsedChat:
    """A body whose fields are right by themselves, before its image is there.

    Attributes:
        raw: The body as JSON.
        body: The same with its types.
        content: What the answer's ``content`` shall hold.
        dropped: Fields that ask for the impossible and that the client lets be ignored.
        images: The one image, or none.
    """

    raw: Json
    body: ChatBody
    content: Content
    dropped: list[str]
    images: tuple[ImageReference, ...]


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat request that can be sent to a model.

    Attributes:
        model: Canonical name.
        ignored: Fields of the body that change nothing.
        image_param, prompt_param: Where in the body the image and the text were, for errors found later; without a
            image, where it could have been.
    """

    model: str
    request: Request
    shape: ResponseOptions
    stream: bool
    include_usage: bool
    ignored: tuple[str, ...]
    image_param: str
    prompt_param: str

    def located(self, error: VlmError) -> VlmError:
        """``error`` with the path in the body instead of the name of a ``Request`` field."""
        message, param = error.message, error.param
        if param == "prompt":
            param = self.prompt_param
        elif param == "image" or (param is None and isinstance(error, InvalidImage)):
            param = self.image_param
            if self.request.image is None:
                message = f"{message} {HOW_TO_SEND}"
        return type(error)(message, param, error.code)


def parse_chat(body: bytes) -> ParsedChat:
    """The first phase of reading a request: what can be known without its image. CPU work only.

    Raises:
        InvalidRequest: With the path of the field at fault.
    """
    raw = read_object(body)
    chat = validated(ChatBody, raw)
    dropped = _impossible(raw, drop=bool(chat.drop_params))
    _check_stream_options(chat)
    return ParsedChat(raw, chat, _content(chat), dropped, _images(chat))


def build_chat(parsed: ParsedChat, images: Sequence[bytes], config: RouterConfig) -> Chat:
    """The second phase, once the image is there. CPU work only.

    Raises:
        InvalidRequest, InvalidImage: With the path of the field at fault.
    """
    chat, content = parsed.body, parsed.content
    image = images[0] if images else None
    image_param = parsed.images[0].param if parsed.images else "messages"
    prompt_param, prompt = _prompt(chat, config)
    request = Request(image, prompt, sampling=_sampling(chat), stream=bool(chat.stream))
    return Chat(
        model=canonical_name(chat.model),
        request=_with_tasks(request, chat, cache(lambda: _size_of(image, config, image_param))),
        shape=ResponseOptions(
            content, include_raw=bool(chat.include_raw) or content == "raw", logprobs=bool(chat.logprobs)
        ),
        stream=bool(chat.stream),
        include_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        ignored=_ignored(parsed.raw, chat, parsed.dropped),
        image_param=image_param,
        prompt_param=prompt_param,
    )


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


def _with_tasks(request: Request, chat: ChatBody, size: Size) -> Request:
    if chat.tasks is not None:
        if chat.task is not None:
            raise InvalidRequest("task and tasks exclude each other: send one of them.", "tasks", "invalid_value")
        parts = (read_task(body, f"tasks[{index}]", size) for index, body in enumerate(chat.tasks))
        return replace(request, tasks=tuple(parts))
    if chat.task is None or chat.task.name == RAW_TASK:
        return request
    return replace(request, task=read_task(chat.task, "task", size))


def _sampling(chat: ChatBody) -> Sampling:
    return Sampling(
        max_tokens=chat.max_completion_tokens or chat.max_tokens,
        temperature=chat.temperature,
        top_p=chat.top_p,
        seed=chat.seed,
        stop=tuple(chat.stop or ()),
        repetition_penalty=chat.repetition_penalty,
        no_repeat_ngram_size=chat.no_repeat_ngram_size,
        num_beams=chat.num_beams,
        length_penalty=chat.length_penalty,
        early_stopping=chat.early_stopping,
        logprobs=bool(chat.logprobs),
    )


def _images(chat: ChatBody) -> tuple[ImageReference, ...]:
    """The one image of all user messages, or none. Whether a request needs one, the model knows."""
    found = tuple(_image_parts(chat))
    if len(found) > 1:
        raise InvalidRequest(
            f"The request has {len(found)} images; these models take one.", "messages", "invalid_value"
        )
    return found


def _size_of(image: bytes | None, config: RouterConfig, param: str) -> tuple[int, int]:
    if image is None:
        raise InvalidRequest(f"A place in pixels needs an image. {HOW_TO_SEND}", param, "invalid_value")
    return upright_size_of(image, config.image_limits, param)


def _image_parts(chat: ChatBody) -> Iterator[ImageReference]:
    for at, message in enumerate(chat.messages):
        for index, part in enumerate(message.content):
            if not isinstance(part, ImagePart):
                continue
            path = f"messages[{at}].content[{index}]"
            if message.role != "user":
                raise InvalidRequest("Images belong into user messages.", path, "invalid_value")
            yield ImageReference(part.image_url.url, f"{path}.image_url.url")


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
    users = [at for at, message in enumerate(chat.messages) if message.role == "user"]
    if not users:
        raise InvalidRequest("The request has no user message.", "messages", "invalid_value")
    return users[-1]
