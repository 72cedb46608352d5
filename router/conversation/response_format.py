"""What ``response_format`` asks for: JSON schemas are accepted by what they require, whatever their name is.

The models cannot be made to write a given shape. What can be sent is the grounding object, or the text as an object; a
schema is accepted if one of these has all that it requires, and the content keeps to its properties where it forbids
further ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from router.conversation.fields import ModelBody, ResponseFormat
from router.conversation.json_schema import JsonSchema
from vlm.errors import InvalidRequest
from vlm.grounding_schema import grounding_schema

Content = Literal["answer", "json", "text", "grounding", "raw"]

RAW_TASK = "raw"
"""The task whose content is the model's own output."""
TEXT = "text"
_TEXT_ALONE = JsonSchema({"type": "object", "properties": {TEXT: {"type": "string"}}})


@dataclass(frozen=True, slots=True)
class ContentForm:
    """What ``message.content`` holds.

    Attributes:
        content: ``answer``: the text, or the objects as JSON for a task without text; ``json``: always JSON; ``text``:
            the answer as ``{"text": ...}``; ``grounding``: the whole grounding object; ``raw``: the model's own output.
        schema: The client's JSON schema, whose properties are the only ones if it forbids others.
        beyond: Keywords of that schema which the content may not keep to.
    """

    content: Content = "answer"
    schema: JsonSchema | None = None
    beyond: tuple[str, ...] = ()


def form_of(body: ModelBody, wanted: ResponseFormat | None, path: str) -> ContentForm:
    """What the answer's content holds; the format that the client wants is at ``path``."""
    return ContentForm("raw") if is_raw(body) else read_form(wanted, path)


def is_raw(body: ModelBody) -> bool:
    """Whether the model's own output is wanted."""
    return body.task is not None and body.task.name == RAW_TASK


def read_form(wanted: ResponseFormat | None, path: str = "response_format") -> ContentForm:
    """The form of the content for a ``response_format``, which is at ``path`` in the body.

    Raises:
        InvalidRequest: Its JSON schema requires what no answer has.
    """
    if wanted is None or wanted.type == "text":
        return ContentForm()
    if wanted.type == "json_object":
        return ContentForm("json")
    given = wanted.json_schema
    if given is None:
        raise InvalidRequest("json_schema is required.", f"{path}.json_schema", "missing_required_parameter")
    if given.schema_ is None:
        return ContentForm("grounding")
    schema = JsonSchema(given.schema_)
    if _is_text(schema):
        return ContentForm("text", beyond=tuple(schema.beyond(_TEXT_ALONE)))
    if schema.has_all_in(_published()):
        return ContentForm("grounding", schema, tuple(schema.beyond(_published())))
    raise InvalidRequest(
        "The answers have the properties of the schema at /v1/schemas/grounding.json, or a text alone: this JSON "
        "schema requires others. Send one whose required properties are among these, or use type json_object.",
        path,
        "unsupported_parameter",
    )


def _is_text(schema: JsonSchema) -> bool:
    """Whether the schema requires a text and nothing else, or has nothing else."""
    only_text = schema.required == [TEXT] or list(schema.properties) == [TEXT]
    return only_text and TEXT in schema.properties and schema.has_all_in(_TEXT_ALONE)


@cache
def _published() -> JsonSchema:
    return JsonSchema(grounding_schema())
