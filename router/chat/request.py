"""OpenAI's chat request, checked and turned into a ``vlm.types.Request``.

Decides what its fields mean together, which are ignored, and which a small vision model can never honour. Native
prompts pass through unchanged, because only the model's processor can interpret them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from router.asgi.body import read_object
from router.asgi.format import ImageReference
from router.asgi.validation import unread_keys, validated
from router.chat.history import Turn, read_turn, without_history
from router.chat.image_parts import image_references
from router.chat.model_name import ModelName, read_model_name, task_of, uses_text
from router.chat.prompt import Prompt, check_length, has_data_url, read_prompt
from router.chat.response import ResponseOptions
from router.chat.response_format import ContentForm, read_form
from router.chat.schema import ChatBody, ImagePart, Message, TaskBody, TextPart
from router.chat.tasks import ImageSize, read_task
from router.chat.tools import TOOL_FIELDS, unused_tools
from router.config import RouterConfig
from router.images import upright_size_of
from vlm.errors import InvalidImage, InvalidRequest, VlmError
from vlm.types import MAX_IMAGES, Request, Sampling

Json = dict[str, Any]

MAX_REPORTED = 32
"""Names of fields, and again of messages, that are listed as ignored; the number of others stands behind them."""
MAX_NAME = 128
"""Characters of one of these names: keys are the client's."""
RAW_TASK = "raw"
SCHEMA = "response_format.json_schema.schema"
HOW_TO_SEND = "Send it as an image_url part of a user message."

IMPOSSIBLE: Mapping[str, tuple[object, ...]] = {
    "audio": (),
    "modalities": (["text"],),
    "prediction": (),
    "web_search_options": (),
    "models": (),
}
"""Known fields that cannot be honoured, and their values that are harmless."""


# The two phases of reading


@dataclass(frozen=True, slots=True)
class ParsedChat:
    """A body whose fields are valid, before its image has been loaded.

    Attributes:
        raw: The body as JSON.
        body: The same as a model, without the messages that are not read.
        turn: The messages that are read.
        prompt: The text of the last user message.
        form: What the answer's ``content`` holds.
        dropped: Fields that cannot be honoured, which the client or the operator allows to be ignored.
        images: The images of the newest user message with any.
    """

    raw: Json
    body: ChatBody
    turn: Turn
    prompt: Prompt
    form: ContentForm
    dropped: list[str]
    images: tuple[ImageReference, ...]


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat request that can be sent to a model.

    Attributes:
        model: Canonical name.
        request: The request to the model.
        options: How the client wants its answer.
        stream: Whether the answer goes out as events.
        include_usage: Whether a stream ends with an event of token counts.
        ignored: Fields of the body that have no effect.
        image_params, prompt_param: Paths of the images and of the text in the body, for errors that are found later;
            without an image, where it would be.
        named_task: The task is that of the model's name.
    """

    model: str
    request: Request
    options: ResponseOptions
    stream: bool
    include_usage: bool
    ignored: tuple[str, ...]
    image_params: tuple[str, ...]
    prompt_param: str
    named_task: bool = False

    def located(self, error: VlmError) -> VlmError:
        """``error`` with the path of a field of the body in place of a field of ``Request``."""
        message, param = error.message, error.param
        if self.named_task and param == "task":
            param = "model"
        elif param == "prompt" or (self.named_task and (param or "").startswith("task.")):
            param = self.prompt_param
        elif param == "image" or (param is None and isinstance(error, InvalidImage)):
            param = self.image_params[0]
            if self.request.image is None and not self.request.images:
                message = f"{message} {HOW_TO_SEND}"
        elif found := re.fullmatch(r"images\[(\d+)\]", param or ""):
            param = self.image_params[int(found[1])]
        return type(error)(message, param, error.code)


def parse_chat(body: bytes, config: RouterConfig) -> ParsedChat:
    """The first phase of reading a request: what can be known without its image. CPU work only.

    Raises:
        InvalidRequest: With the path of the field at fault.
    """
    raw = read_object(body)
    turn = read_turn(raw)
    chat = validated(ChatBody, raw if turn is None else without_history(raw, turn))
    if turn is None:
        raise InvalidRequest("The request has no message whose role is user.", "messages", "invalid_value")
    drop = config.drop_params if chat.drop_params is None else chat.drop_params
    dropped = [*unused_tools(raw, chat.model, drop=drop), *_impossible(raw, drop=drop)]
    _check_stream_options(chat)
    prompt = _prompt(chat.messages[turn.text], f"messages[{turn.text}].content", config)
    return ParsedChat(raw, chat, turn, prompt, _form(chat), dropped, _images(chat, turn))


def build_chat(parsed: ParsedChat, images: Sequence[bytes], config: RouterConfig) -> Chat:
    """The second phase, once the image is there. CPU work only.

    Raises:
        InvalidRequest, InvalidImage: With the path of the field at fault.
    """
    chat, form = parsed.body, parsed.form
    name = read_model_name(chat.model, config)
    request = Request(
        images[0] if len(images) == 1 else None,
        parsed.prompt.text,
        sampling=_sampling(chat),
        stream=bool(chat.stream),
        n=chat.n or 1,
        images=tuple(images) if len(images) > 1 else (),
    )
    named_task = _is_named(name, parsed)
    return Chat(
        model=name.model,
        request=(
            replace(request, prompt="", task=task_of(name.task or "", parsed.prompt))
            if named_task
            else _with_tasks(request, chat, cache(lambda: _size_of(images, config, parsed)))
        ),
        options=ResponseOptions(
            form.content,
            include_raw=bool(chat.include_raw) or form.content == "raw",
            logprobs=bool(chat.logprobs),
            schema=form.schema,
            grounding_format=chat.grounding_format,
        ),
        stream=bool(chat.stream),
        include_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        ignored=_ignored(parsed, name, named_task=named_task),
        image_params=tuple(reference.param for reference in parsed.images) or ("messages",),
        prompt_param=_prompt_param(parsed),
        named_task=named_task,
    )


def _is_named(name: ModelName, parsed: ParsedChat) -> bool:
    """Whether the task is that of the model's name: a task of the body comes first, and so does a native prompt."""
    chat = parsed.body
    return name.task is not None and not parsed.prompt.native and chat.tasks is None and _named_in_body(chat) is None


def _named_in_body(chat: ChatBody) -> TaskBody | None:
    return None if chat.task is None or chat.task.name == RAW_TASK else chat.task


def _prompt_param(parsed: ParsedChat) -> str:
    return f"messages[{parsed.turn.text}].content"


# Fields without effect


def _impossible(raw: Json, *, drop: bool) -> list[str]:
    """Names of fields that cannot be honoured; an error unless they may be ignored."""
    found = [name for name, harmless in IMPOSSIBLE.items() if not _is_harmless(raw.get(name), harmless)]
    if found and not drop:
        raise InvalidRequest(
            f"{found[0]} is not supported by these models; leave it out, or send drop_params: true to have it ignored.",
            found[0],
            "unsupported_parameter",
        )
    return found


def _is_harmless(value: object, harmless: tuple[object, ...]) -> bool:
    """Whether a value is None or one of ``harmless``; true is not 1, although Python finds them equal."""
    return value is None or (value in harmless and not isinstance(value, bool))


def _ignored(parsed: ParsedChat, model: ModelName, *, named_task: bool) -> tuple[str, ...]:
    read = without_history(parsed.raw, parsed.turn)
    unread = [name for name in unread_keys(parsed.body, read) if name not in IMPOSSIBLE and name not in TOOL_FIELDS]
    other_task = ["model"] if model.task is not None and not named_task else []
    fields = [*other_task, *unread, *_overruled(parsed.body), *(f"{SCHEMA}.{name}" for name in parsed.form.beyond)]
    messages = [f"messages[{at}]" for at in parsed.turn.unused(parsed.raw["messages"])]
    without_text = named_task and not uses_text(model.task or "")
    text = [_prompt_param(parsed)] if without_text and parsed.prompt.text.strip() else _unused_parts(parsed)
    return (*_some(fields), *parsed.dropped, *_some(messages), *text)


def _some(names: Sequence[str]) -> Iterator[str]:
    yield from (name[:MAX_NAME] for name in names[:MAX_REPORTED])
    if len(names) > MAX_REPORTED:
        yield f"and {len(names) - MAX_REPORTED} more"


def _overruled(chat: ChatBody) -> Iterator[str]:
    """Known fields that another one overrules, and the ``detail`` of images: each model has one resolution."""
    if chat.max_tokens is not None and chat.max_completion_tokens not in (None, chat.max_tokens):
        yield "max_tokens"
    if chat.task is not None and chat.task.name == RAW_TASK and chat.response_format is not None:
        yield "response_format"
    for number, message in enumerate(chat.messages):
        for at, part in enumerate(message.content):
            if isinstance(part, ImagePart) and part.image_url.detail not in (None, "auto"):
                yield f"messages[{number}].content[{at}].image_url.detail"


def _unused_parts(parsed: ParsedChat) -> Iterator[str]:
    """Paths of the parts of the last user message that are not wholly used."""
    path = _prompt_param(parsed)
    is_list = isinstance(parsed.raw["messages"][parsed.turn.text].get("content"), list)
    for part in parsed.prompt.unused:
        yield f"{path}[{part}]" if is_list else path


# The request to the model, and the form of the answer


def _check_stream_options(chat: ChatBody) -> None:
    if chat.stream_options is not None and not chat.stream:
        raise InvalidRequest("stream_options is allowed only with stream: true.", "stream_options", "invalid_value")


def _form(chat: ChatBody) -> ContentForm:
    if chat.task is not None and chat.task.name == RAW_TASK:
        return ContentForm("raw")
    return read_form(chat.response_format)


def _with_tasks(request: Request, chat: ChatBody, size: ImageSize) -> Request:
    if chat.tasks is not None:
        if chat.task is not None:
            raise InvalidRequest("task and tasks cannot be sent together: send one of them.", "tasks", "invalid_value")
        parts = (read_task(body, f"tasks[{index}]", size) for index, body in enumerate(chat.tasks))
        return replace(request, tasks=tuple(parts))
    task = _named_in_body(chat)
    return request if task is None else replace(request, task=read_task(task, "task", size))


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
        top_logprobs=chat.top_logprobs or 0,
        frequency_penalty=chat.frequency_penalty or 0.0,
        presence_penalty=chat.presence_penalty or 0.0,
        logit_bias=tuple((int(token), bias) for token, bias in (chat.logit_bias or {}).items()),
        top_k=chat.top_k or 0,
        min_p=chat.min_p or 0.0,
    )


def _images(chat: ChatBody, turn: Turn) -> tuple[ImageReference, ...]:
    """The images of the newest user message with any. Whether a request needs one, the model decides."""
    found: tuple[ImageReference, ...] = ()
    if turn.images is not None:
        found = image_references(chat.messages[turn.images], f"messages[{turn.images}]")
    if len(found) > MAX_IMAGES:
        raise InvalidRequest(
            f"The message has {len(found)} images; a request takes at most {MAX_IMAGES}.",
            f"messages[{turn.images}].content",
            "invalid_value",
        )
    return found


def _size_of(images: Sequence[bytes], config: RouterConfig, parsed: ParsedChat) -> tuple[int, int]:
    """The size of all images, in which a point or box in pixels is meant."""
    if not images:
        raise InvalidRequest(f"A point or box in pixels needs an image. {HOW_TO_SEND}", "messages", "invalid_value")
    sizes = {
        upright_size_of(image, config.image_limits, reference.param)
        for image, reference in zip(images, parsed.images, strict=True)
    }
    if len(sizes) > 1:
        raise InvalidRequest(
            "A point or box in pixels needs images of one size, and these differ: give it from 0 to 1.",
            "messages",
            "invalid_value",
        )
    return sizes.pop()


def _prompt(message: Message, path: str, config: RouterConfig) -> Prompt:
    """The text of the last user message, which is at ``path``."""
    texts = [(at, part.text) for at, part in enumerate(message.content) if isinstance(part, TextPart)]
    if any(has_data_url(text) for _, text in texts):
        raise InvalidRequest(
            "The text has an image in it, as a data URL, which models cannot read as words. Send the image as a part "
            'of its own: {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}.',
            path,
            "invalid_value",
        )
    check_length(sum(len(text) for _, text in texts), path, config)
    return read_prompt(texts)
