"""A request for a response, checked and read as a conversation.

Nothing is stored here, so what refers to earlier responses is refused, with words that say what to send instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from router.asgi.body import read_object
from router.asgi.format import ImageReference
from router.asgi.validation import given_one, validated
from router.config import RouterConfig
from router.conversation.fields import NamedSchema, ResponseFormat
from router.conversation.history import Spelling, Turn, read_turn, without_history
from router.conversation.ignored import IMPOSSIBLE as IMPOSSIBLE_ANYWHERE
from router.conversation.ignored import dropped_fields, some_of, unread_fields, unused_messages
from router.conversation.question import Question, check_number, no_user_message, prompt_of, unused_parts
from router.conversation.request import ParsedConversation, check_stream_options
from router.conversation.response_format import form_of, is_raw
from router.responses.schema import InputFile, InputImage, InputText, PlainFormat, ResponsesBody
from vlm.errors import InvalidRequest

Json = dict[str, Any]

SPELLING = Spelling(field="input", text="input_text", images=("input_image", "input_file"))
FORMAT = "text.format"
EXAMPLE = '{"type": "input_image", "image_url": "data:image/png;base64,..."}'
HOW_TO_SEND = "Send it as an input_image part of a user message."
LOGPROBS = "message.output_text.logprobs"

RENAMED: Mapping[str, str] = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "logprobs": f'include: ["{LOGPROBS}"]',
}
"""Fields of chat completions, and what they are here: who sends one would miss what it asks for."""

STORED: Mapping[str, str] = {
    "previous_response_id": "responses are not stored here. Send the whole conversation in input.",
    "conversation": "conversations are not stored here. Send the whole conversation in input.",
    "prompt": "prompt templates are not stored here. Send the text in input.",
    "background": "responses are not stored here, so nobody could fetch it later. Leave it out; stream long answers.",
}
"""Fields that need storage, and why they are refused. Without them the answer would be to another question."""

IMPOSSIBLE: Mapping[str, tuple[object, ...]] = {**IMPOSSIBLE_ANYWHERE, "n": (1,), "moderation": ()}
"""Known fields that cannot be honoured, and their values that are harmless."""


@dataclass(frozen=True, slots=True)
class ParsedResponses:
    """A body whose fields are valid, before its image has been loaded.

    Attributes:
        body: The body.
        conversation: The same as all formats read it.
    """

    body: ResponsesBody
    conversation: ParsedConversation

    @property
    def images(self) -> tuple[ImageReference, ...]:
        """The images that have to be loaded."""
        return self.conversation.images


def parse_responses(body: bytes, config: RouterConfig) -> ParsedResponses:
    """What can be known of a request without its image. CPU work only.

    Raises:
        InvalidRequest: With the path of the field at fault.
    """
    raw = read_object(body)
    _check_names(raw)
    turn = _turn(raw)
    read = _read_part(raw, turn)
    wanted = validated(ResponsesBody, read)
    if turn is None:
        raise no_user_message("input")
    _check_storage(wanted)
    check_stream_options(wanted.stream_options, stream=bool(wanted.stream))
    form = form_of(wanted, _format(wanted), FORMAT)
    without_effect = [
        *unread_fields(wanted, read, (*IMPOSSIBLE, *RENAMED)),
        *_without_effect(wanted),
        *(f"{FORMAT}.schema.{name}" for name in form.beyond),
    ]
    parsed = ParsedConversation(
        body=wanted,
        question=_question(raw, wanted, turn, config),
        form=form,
        ignored=(*some_of(without_effect), *dropped_fields(raw, wanted, IMPOSSIBLE, config), *_history(raw, turn)),
        max_tokens=wanted.max_output_tokens,
        logprobs=_wants_logprobs(wanted),
        effort=None if wanted.reasoning is None else wanted.reasoning.effort,
    )
    return ParsedResponses(wanted, parsed)


# Fields


def _check_names(raw: Json) -> None:
    for name, here in RENAMED.items():
        if raw.get(name) is not None and raw[name] is not False:
            raise InvalidRequest(
                f"{name} is a field of /v1/chat/completions: send {here} instead.", name, "unsupported_parameter"
            )
    text = raw.get("text")
    given = text.get("format") if isinstance(text, dict) else None
    if isinstance(given, dict) and given.get("json_schema") is not None:
        raise InvalidRequest(
            "text.format.json_schema is of /v1/chat/completions: send name, schema and strict in text.format itself.",
            "text.format.json_schema",
            "unsupported_parameter",
        )


def _check_storage(wanted: ResponsesBody) -> None:
    for name, why in STORED.items():
        if getattr(wanted, name) not in (None, False):
            raise InvalidRequest(f"{name} is not supported: {why}", name, "unsupported_parameter")


def _without_effect(wanted: ResponsesBody) -> Iterator[str]:
    """Paths of the fields that are known, and change nothing."""
    effects: Mapping[str, object] = {
        "instructions": wanted.instructions,
        "text.verbosity": wanted.text and wanted.text.verbosity,
        "stream_options.include_obfuscation": wanted.stream_options and wanted.stream_options.include_obfuscation,
        "store": wanted.store,
        "truncation": wanted.truncation == "auto",
        FORMAT: is_raw(wanted) and wanted.text and wanted.text.format,
    }
    yield from (path for path, value in effects.items() if value)
    yield from (f"include[{at}]" for at, name in enumerate(wanted.include or ()) if name != LOGPROBS)
    for number, message in enumerate(wanted.input):
        for at, part in enumerate(message.content):
            if isinstance(part, InputImage) and part.detail not in (None, "auto"):
                yield f"input[{number}].content[{at}].detail"


def _wants_logprobs(wanted: ResponsesBody) -> bool:
    wants = LOGPROBS in (wanted.include or ())
    if wanted.top_logprobs and not wants:
        raise InvalidRequest(f'top_logprobs needs include: ["{LOGPROBS}"].', "top_logprobs", "invalid_value")
    return wants


def _format(wanted: ResponsesBody) -> ResponseFormat | None:
    """``text.format`` as all formats read it."""
    given = None if wanted.text is None else wanted.text.format
    if given is None:
        return None
    if isinstance(given, PlainFormat):
        return ResponseFormat(type=given.type)
    return ResponseFormat(type=given.type, json_schema=NamedSchema(name=given.name, schema=given.schema_))


# The conversation


def _turn(raw: Json) -> Turn | None:
    return Turn(0, None, SPELLING) if isinstance(raw.get("input"), str) else read_turn(raw, SPELLING)


def _read_part(raw: Json, turn: Turn | None) -> Json:
    """The body without the items that are not read: all of them where nobody asks anything."""
    if not isinstance(raw.get("input"), list):
        return raw
    return without_history(raw, turn or Turn(-1, None, SPELLING))


def _history(raw: Json, turn: Turn) -> list[str]:
    return unused_messages(raw, turn) if isinstance(raw["input"], list) else []


def _question(raw: Json, wanted: ResponsesBody, turn: Turn, config: RouterConfig) -> Question:
    is_list = isinstance(raw["input"], list)
    path = f"input[{turn.text}].content" if is_list else "input"
    parts = wanted.input[turn.text].content
    texts = [(at, part.text) for at, part in enumerate(parts) if isinstance(part, InputText)]
    prompt = prompt_of(texts, path, config, EXAMPLE)
    unused = unused_parts(prompt, path, raw["input"][turn.text].get("content") if is_list else raw["input"])
    return Question(prompt, path, unused, _images(wanted, turn), "input", HOW_TO_SEND)


def _images(wanted: ResponsesBody, turn: Turn) -> tuple[ImageReference, ...]:
    if turn.images is None:
        return ()
    path = f"input[{turn.images}].content"
    parts = wanted.input[turn.images].content
    found = (_image(part, f"{path}[{at}]") for at, part in enumerate(parts) if not isinstance(part, InputText))
    return check_number(tuple(found), path)


def _image(part: InputImage | InputFile, path: str) -> ImageReference:
    sources = ("image_url", "file_id") if isinstance(part, InputImage) else ("file_id", "file_data", "file_url")
    name = given_one(part, sources, path)
    return ImageReference(getattr(part, name), f"{path}.{name}", is_file=name == "file_id")
