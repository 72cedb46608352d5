"""OpenAI's chat request, checked and turned into a ``vlm.types.Request``.

Decides what its fields mean together, which are ignored, and which a small vision model can never honour. Native
prompts pass through unchanged, because only the model's processor can interpret them. A format that spells the same
request in another way has a ``parse`` of its own, and shares the rest.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from router.asgi.body import read_object
from router.asgi.format import ImageReference
from router.asgi.validation import validated
from router.chat.history import Turn, read_turn, without_history
from router.chat.model_name import ModelName, read_model_name, task_of, uses_text
from router.chat.question import Question, check_number, no_user_message, prompt_of, unused_parts
from router.chat.response import ResponseOptions
from router.chat.response_format import ContentForm, read_form
from router.chat.schema import ChatBody, ImagePart, Message, ModelBody, Part, ResponseFormat, TaskBody, TextPart
from router.chat.tasks import ImageSize, read_task
from router.chat.tools import TOOL_FIELDS, unused_tools
from router.config import RouterConfig
from router.images import upright_size_of
from vlm.errors import InvalidImage, InvalidRequest, VlmError
from vlm.types import Request, Sampling

Json = dict[str, Any]

MAX_REPORTED = 32
RAW_TASK = "raw"
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
        body: The fields that all formats have.
        question: What of the conversation is the request.
        form: What the answer's ``content`` holds.
        ignored: Fields and messages of the body that have no effect.
        max_tokens: Maximum number of tokens to generate.
        n: Number of answers.
        logprobs: Report each token's log-probability.
        include_usage: Whether a stream ends with an event of token counts.
    """

    body: ModelBody
    question: Question
    form: ContentForm
    ignored: tuple[str, ...]
    max_tokens: int | None = None
    n: int = 1
    logprobs: bool = False
    include_usage: bool = False

    @property
    def images(self) -> tuple[ImageReference, ...]:
        """The images that have to be loaded."""
        return self.question.images


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
        how_to_send: What to do about a missing image.
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
    how_to_send: str
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
                message = f"{message} {self.how_to_send}"
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
        raise no_user_message("messages")
    drop = config.drop_params if chat.drop_params is None else chat.drop_params
    dropped = [*unused_tools(raw, chat.model, drop=drop), *impossible_fields(raw, IMPOSSIBLE, drop=drop)]
    check_stream_options(chat.stream_options, stream=bool(chat.stream))
    return ParsedChat(
        body=chat,
        question=_question(raw, chat, turn, config),
        form=form_of(chat, chat.response_format, "response_format"),
        ignored=(*unknown_fields(raw, (*ChatBody.model_fields, *IMPOSSIBLE)), *dropped, *unused_messages(raw, turn)),
        max_tokens=chat.max_completion_tokens or chat.max_tokens,
        n=chat.n or 1,
        logprobs=bool(chat.logprobs),
        include_usage=bool(chat.stream_options and chat.stream_options.include_usage),
    )


def build_chat(parsed: ParsedChat, images: Sequence[bytes], config: RouterConfig) -> Chat:
    """The second phase, once the image is there. CPU work only.

    Raises:
        InvalidRequest, InvalidImage: With the path of the field at fault.
    """
    chat, form, question = parsed.body, parsed.form, parsed.question
    name = read_model_name(chat.model, config)
    request = Request(
        images[0] if len(images) == 1 else None,
        question.prompt.text,
        sampling=_sampling(parsed),
        stream=bool(chat.stream),
        n=parsed.n,
        images=tuple(images) if len(images) > 1 else (),
    )
    named_task = _is_named(name, parsed)
    return Chat(
        model=name.model,
        request=(
            replace(request, prompt="", task=task_of(name.task or "", question.prompt))
            if named_task
            else _with_tasks(request, chat, cache(lambda: _size_of(images, config, question)))
        ),
        options=ResponseOptions(
            form.content,
            include_raw=bool(chat.include_raw) or form.content == "raw",
            logprobs=parsed.logprobs,
            schema=form.schema,
            grounding_format=chat.grounding_format,
        ),
        stream=bool(chat.stream),
        include_usage=parsed.include_usage,
        ignored=(*parsed.ignored, *_unused_text(question, all_of_it=named_task and not uses_text(name.task or ""))),
        image_params=tuple(reference.param for reference in question.images) or (question.conversation,),
        prompt_param=question.prompt_param,
        how_to_send=question.how_to_send,
        named_task=named_task,
    )


def _is_named(name: ModelName, parsed: ParsedChat) -> bool:
    """Whether the task is that of the model's name: a task of the body comes first, and so does a native prompt."""
    chat, native = parsed.body, parsed.question.prompt.native
    return name.task is not None and not native and chat.tasks is None and _named_in_body(chat) is None


def _named_in_body(chat: ModelBody) -> TaskBody | None:
    return None if chat.task is None or chat.task.name == RAW_TASK else chat.task


# Fields without effect


def impossible_fields(raw: Json, impossible: Mapping[str, tuple[object, ...]], *, drop: bool) -> list[str]:
    """Names of fields that cannot be honoured; an error unless they may be ignored.

    Args:
        raw: The body.
        impossible: The names of such fields, each with its harmless values.
        drop: Whether they may be ignored.

    Raises:
        InvalidRequest: With the path of the field.
    """
    found = [name for name, harmless in impossible.items() if not _is_harmless(raw.get(name), harmless)]
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


def unknown_fields(raw: Json, known: Collection[str]) -> list[str]:
    """Names of the first fields of a body that are not ``known``, apart from those about tools."""
    unknown = [name for name, value in raw.items() if value is not None and name not in (*known, *TOOL_FIELDS)]
    return [name[:64] for name in unknown[:MAX_REPORTED]]


def unused_messages(raw: Json, turn: Turn) -> list[str]:
    """Paths of the first messages of a conversation that are not used."""
    field = turn.spelling.field
    return [f"{field}[{at}]" for at in turn.unused(raw[field])[:MAX_REPORTED]]


def _unused_text(question: Question, *, all_of_it: bool) -> tuple[str, ...]:
    return (question.prompt_param,) if all_of_it and question.prompt.text.strip() else question.unused_text


# The request to the model, and the form of the answer


def check_stream_options(options: object, *, stream: bool) -> None:
    """Raise InvalidRequest if there are options for a stream, but no stream."""
    if options is not None and not stream:
        raise InvalidRequest("stream_options is allowed only with stream: true.", "stream_options", "invalid_value")


def form_of(body: ModelBody, wanted: ResponseFormat | None, path: str) -> ContentForm:
    """What the answer's content holds; the format that the client wants is at ``path``."""
    if body.task is not None and body.task.name == RAW_TASK:
        return ContentForm("raw")
    return read_form(wanted, path)


def _with_tasks(request: Request, chat: ModelBody, size: ImageSize) -> Request:
    if chat.tasks is not None:
        if chat.task is not None:
            raise InvalidRequest("task and tasks cannot be sent together: send one of them.", "tasks", "invalid_value")
        parts = (read_task(body, f"tasks[{index}]", size) for index, body in enumerate(chat.tasks))
        return replace(request, tasks=tuple(parts))
    task = _named_in_body(chat)
    return request if task is None else replace(request, task=read_task(task, "task", size))


def _sampling(parsed: ParsedChat) -> Sampling:
    chat = parsed.body
    return Sampling(
        max_tokens=parsed.max_tokens,
        temperature=chat.temperature,
        top_p=chat.top_p,
        seed=chat.seed,
        stop=tuple(chat.stop or ()),
        repetition_penalty=chat.repetition_penalty,
        no_repeat_ngram_size=chat.no_repeat_ngram_size,
        num_beams=chat.num_beams,
        length_penalty=chat.length_penalty,
        early_stopping=chat.early_stopping,
        logprobs=parsed.logprobs,
        top_logprobs=chat.top_logprobs or 0,
        frequency_penalty=chat.frequency_penalty or 0.0,
        presence_penalty=chat.presence_penalty or 0.0,
        logit_bias=tuple((int(token), bias) for token, bias in (chat.logit_bias or {}).items()),
        top_k=chat.top_k or 0,
        min_p=chat.min_p or 0.0,
    )


def _size_of(images: Sequence[bytes], config: RouterConfig, question: Question) -> tuple[int, int]:
    """The size of all images, in which a point or box in pixels is meant."""
    where = question.conversation
    if not images:
        message = f"A point or box in pixels needs an image. {question.how_to_send}"
        raise InvalidRequest(message, where, "invalid_value")
    sizes = {
        upright_size_of(image, config.image_limits, reference.param)
        for image, reference in zip(images, question.images, strict=True)
    }
    if len(sizes) > 1:
        message = "A point or box in pixels needs images of one size, and these differ: give it from 0 to 1."
        raise InvalidRequest(message, where, "invalid_value")
    return sizes.pop()


# The conversation


def _question(raw: Json, chat: ChatBody, turn: Turn, config: RouterConfig) -> Question:
    path = f"messages[{turn.text}].content"
    prompt = prompt_of(_texts(chat.messages[turn.text].content), path, config)
    unused = unused_parts(prompt, path, raw["messages"][turn.text].get("content"))
    return Question(prompt, path, unused, _images(chat, turn), "messages", HOW_TO_SEND)


def _images(chat: ChatBody, turn: Turn) -> tuple[ImageReference, ...]:
    """The images of the newest user message with any. Whether a request needs one, the model decides."""
    if turn.images is None:
        return ()
    path = f"messages[{turn.images}]"
    return check_number(tuple(_image_parts(chat.messages[turn.images], path)), f"{path}.content")


def _image_parts(message: Message, path: str) -> Iterator[ImageReference]:
    for index, part in enumerate(message.content):
        if isinstance(part, ImagePart):
            yield ImageReference(part.image_url.url, f"{path}.content[{index}].image_url.url")


def _texts(parts: Sequence[Part]) -> list[tuple[int, str]]:
    """The texts of a message's parts, each with its position."""
    return [(at, part.text) for at, part in enumerate(parts) if isinstance(part, TextPart)]
