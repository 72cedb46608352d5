"""A completion as OpenAI's Response object: a reasoning item if the model reasoned, and a message item."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from router.asgi.errors import encode
from router.conversation.answer import (
    ResponseMeta,
    ResponseOptions,
    content_of,
    cost_json,
    extras_json,
    found_json,
    logprobs_json,
)
from router.conversation.tier import served_as
from router.responses.schema import Reasoning, ResponsesBody, SchemaFormat, TextSettings
from vlm.errors import InvalidImage, InvalidRequest, VlmError
from vlm.types import Chunk, Completion

Json = dict[str, Any]

MAX_ECHOED_BYTES = 32_768
"""Size of the instructions, and of a JSON schema, that an answer repeats; of larger ones it has null, and {}. A stream
repeats them three times, so that a large request would otherwise have answers of several times its size."""

IMAGE_CODES = frozenset({
    "invalid_image", "invalid_image_format", "invalid_base64_image", "invalid_image_url", "image_too_large",
    "image_too_small", "image_parse_error", "image_file_too_large", "empty_image_file", "failed_to_download_image",
    "image_file_not_found",
})  # fmt: skip
"""The codes about images that OpenAI's type of a response's error has, and we use."""


def _new_id() -> str:
    return uuid.uuid4().hex


def _new_response_id() -> str:
    return f"resp_{_new_id()}"


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What every state of one response repeats.

    Attributes:
        meta: What the answers of all formats say.
        echo: The settings of the request, as the answer repeats them.
        in_summary: Whether the reasoning is the summary of its item, and not its content.
        id: OpenAI's.
        item_id: What the ids of its items end in.
        choice: Position among the models that are compared, whose message says which it is of; None where there is one.
    """

    meta: ResponseMeta
    echo: Json
    in_summary: bool = False
    id: str = field(default_factory=_new_response_id)
    item_id: str = field(default_factory=_new_id)
    choice: int | None = None

    def of_choice(self, index: int) -> ResponseHead:
        """The same for the items of one of the models that are compared."""
        return replace(self, item_id=f"{self.item_id}_{index}", choice=index)

    @property
    def is_of_several(self) -> bool:
        """Whether several models are compared."""
        return self.meta.report is not None and self.meta.report.several

    @property
    def of_model(self) -> Json:
        """The keys that only the messages of several models have."""
        report = self.meta.report
        return {} if self.choice is None or report is None else {"model": report.choices[self.choice]}

    @property
    def message_id(self) -> str:
        """Id of the message item."""
        return f"msg_{self.item_id}"

    @property
    def reasoning_id(self) -> str:
        """Id of the reasoning item."""
        return f"rs_{self.item_id}"

    def json(self, status: str, output: Sequence[Json] = (), **known: Any) -> Json:
        """The Response object in a state; ``known`` are the fields that are null in other states."""
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.meta.created,
            "status": status,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "model": self.meta.model,
            "output": [*output],
            "usage": None,
            **self.echo,
            **known,
        }


def response_json(completion: Completion, head: ResponseHead, options: ResponseOptions) -> Json:
    """The body of a whole answer, which is also the last state of a streamed one."""
    cut = completion.finish_reason == "length"
    return head.json(
        status_of(completion),
        [item for one, answer in answers_of(completion, head) for item in items_of(one, answer, options)],
        usage=usage_json(completion, head.meta),
        completed_at=None if cut else int(time.time()),
        incomplete_details={"reason": "max_output_tokens"} if cut else None,
        x_gigarouter=extras_json(completion, head.meta),
    )


def answers_of(completion: Completion, head: ResponseHead) -> list[tuple[ResponseHead, Completion]]:
    """The answers of an answer, each with what its items repeat: one, or that of each model that is compared."""
    if not completion.choices:
        return [(head, completion)]
    return [(head.of_choice(index), answer) for index, answer in enumerate(completion.choices)]


def items_of(head: ResponseHead, completion: Completion, options: ResponseOptions) -> list[Json]:
    """The items of one answer."""
    reasoning = [reasoning_item(head, completion.reasoning)] if completion.reasoning else []
    return [*reasoning, message_item(head, completion, options)]


def status_of(completion: Completion) -> str:
    """The status of an answer that has ended."""
    return "incomplete" if completion.finish_reason == "length" else "completed"


def message_item(head: ResponseHead, completion: Completion, options: ResponseOptions) -> Json:
    """The message, with the grounding object beside its content."""
    return {
        **open_message(head),
        "status": status_of(completion),
        "content": [text_part(content_of(completion, options), completion, options)],
        **found_json(completion, options),
        **head.of_model,
    }


def text_part(text: str, completion: Completion, options: ResponseOptions) -> Json:
    """The message's only part; beside its log-probabilities, the ids of the tokens."""
    token_ids = {"token_ids": list(completion.token_ids)} if options.logprobs else {}
    return {**open_text(), "text": text, "logprobs": logprobs_of(completion, options), **token_ids}


def open_message(head: ResponseHead) -> Json:
    """A message whose content is still to come."""
    return {"id": head.message_id, "type": "message", "status": "in_progress", "role": "assistant", "content": []}


def open_text() -> Json:
    """A part of a message whose text is still to come."""
    return {"type": "output_text", "text": "", "annotations": [], "logprobs": []}


def reasoning_item(head: ResponseHead, text: str) -> Json:
    """What the model generated before its answer."""
    where = "summary" if head.in_summary else "content"
    return {**open_reasoning(head), "status": "completed", where: [reasoning_part(head, text)]}


def open_reasoning(head: ResponseHead) -> Json:
    """A reasoning item whose text is still to come."""
    return {"id": head.reasoning_id, "type": "reasoning", "status": "in_progress", "summary": [], "content": []}


def reasoning_part(head: ResponseHead, text: str) -> Json:
    """The reasoning item's only part."""
    return {"type": "summary_text" if head.in_summary else "reasoning_text", "text": text}


def logprobs_of(answer: Completion | Chunk, options: ResponseOptions) -> list[Json]:
    """The log-probabilities of an answer's tokens, if they were asked for."""
    found = logprobs_json(answer, options)["logprobs"]
    return [] if found is None else list(found["content"])


def usage_json(completion: Completion, meta: ResponseMeta) -> Json:
    """Tokens read and written, and what they cost."""
    usage = completion.usage
    read = usage.image_tokens + usage.text_tokens
    return {
        "input_tokens": read,
        "input_tokens_details": {
            "image_tokens": usage.image_tokens,
            "text_tokens": usage.text_tokens,
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": 0,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": read + usage.completion_tokens,
        **cost_json(completion, meta),
    }


def error_json(error: VlmError) -> Json:
    """The error within a response that failed, with one of the codes that OpenAI's type has."""
    code = "server_error"
    if isinstance(error, InvalidImage):
        code = error.code if error.code in IMAGE_CODES else "invalid_image"
    elif isinstance(error, InvalidRequest):
        code = "invalid_prompt"
    return {"code": code, "message": error.message}


def echo_of(body: ResponsesBody) -> Json:
    """The settings of a request as its answer repeats them; those that have no effect have the value that is true."""
    told = isinstance(body.instructions, str) and _is_small(body.instructions)
    reasoning = body.reasoning or Reasoning()
    return {
        "background": False,
        "instructions": body.instructions if told else None,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": reasoning.effort, "summary": reasoning.summary},
        "service_tier": served_as(body.service_tier),
        "store": False,
        "temperature": body.temperature,
        "text": {"format": _format(body.text)},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": body.top_p,
        "truncation": "disabled",
    }


def _format(text: TextSettings | None) -> Json:
    given = text and text.format
    if given is None:
        return {"type": "text"}
    told: Json = given.model_dump(by_alias=True, exclude_none=True)
    if isinstance(given, SchemaFormat) and not _is_small(given.schema_):
        told["schema"] = {}
    return told


def _is_small(value: Any) -> bool:
    return len(encode(value)) <= MAX_ECHOED_BYTES
