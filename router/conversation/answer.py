"""What the answers of all formats hold: the rule for the content, the grounding object beside it, and our own keys."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from accounts.money import Nano, number_of
from router.asgi.errors import encode
from router.composition.routing_report import Report
from router.conversation.json_schema import JsonSchema
from router.conversation.response_format import Content
from router.conversation.tier import ServedTier
from vlm.grounding_formats import render
from vlm.grounding_json import objects_json, to_json
from vlm.types import Chunk, Completion, Timings

Json = dict[str, Any]

_TIMINGS = tuple(one.name for one in fields(Timings) if one.name != "encode_ms")  # which means little on a GPU


@dataclass(frozen=True, slots=True)
class ResponseOptions:
    """How the client wants its answer.

    Attributes:
        content: What ``message.content`` holds; see :class:`~router.conversation.response_format.ContentForm`.
        include_raw: Put the model's own output into the grounding object.
        logprobs: Report each token's log-probability.
        schema: The client's JSON schema for the content, whose properties are the only ones if it forbids others.
        grounding_format: Render the objects in this format too, a key of ``vlm.grounding_formats.FORMATS``.
    """

    content: Content = "answer"
    include_raw: bool = False
    logprobs: bool = False
    schema: JsonSchema | None = None
    grounding_format: str | None = None


def _now() -> int:
    return int(time.time())


@dataclass(frozen=True, slots=True)
class ResponseMeta:
    """What every format's answer says of itself and of its request.

    Attributes:
        model: Canonical name.
        request_id: As in the header.
        ignored: What of the request has no effect, as far as the router knows.
        resolution: How the router found the task; None where the model did.
        service_tier: How the request was served, if it asked for that.
        path_of: The path in the body of what a model calls by the name of a field of ``Request``.
        report: What several models had to do with it; None where it is of the one that was asked.
        costs: What a whole answer costs in nano-dollars; None where its price is not known.
        created: When the answer began, in seconds since 1970.
    """

    model: str
    request_id: str
    ignored: tuple[str, ...] = ()
    resolution: str | None = None
    path_of: Callable[[str], str] = str
    service_tier: ServedTier | None = None
    report: Report | None = None
    costs: Callable[[Completion], Nano | None] = lambda _: None
    created: int = field(default_factory=_now)


def cost_json(completion: Completion, meta: ResponseMeta) -> Json:
    """What the answer costs in US dollars; no key where its price is not known."""
    amount = meta.costs(completion) if meta.report is None else meta.report.cost
    return {} if amount is None else {"cost": number_of(amount)}


def content_of(completion: Completion, options: ResponseOptions) -> str:
    """The text of the answer, as the client wants it."""
    match options.content:
        case "raw":
            return completion.grounding.raw
        case "grounding":
            grounding = grounding_of(completion, options)
            return _encoded(grounding if options.schema is None else options.schema.kept(grounding))
        case "text":
            return _encoded({"text": _answer(completion, options)})
        case "json":
            return _encoded(_object(completion, options))
        case "answer":
            return _answer(completion, options)


def _answer(completion: Completion, options: ResponseOptions) -> str:
    """The text, or the objects as compact JSON if the answer has no text."""
    if completion.has_text:
        return completion.text
    if options.grounding_format is not None:
        return _encoded(render(completion.grounding, options.grounding_format))
    return _encoded(objects_json(completion.grounding))


def _encoded(value: Any) -> str:
    return encode(value).decode()


def _object(completion: Completion, options: ResponseOptions) -> Json:
    """Any answer as a JSON object: the grounding where it has objects or several answers, else the text."""
    if completion.has_text and not (completion.grounding.detections or completion.parts):
        return {"text": completion.text}
    return grounding_of(completion, options)


def early_text(chunk: Chunk, options: ResponseOptions) -> str:
    """The text of a chunk if it may be sent before the answer is whole: where the content is that text, as it is."""
    has_text = chunk.completion is None or chunk.completion.has_text
    return chunk.text if options.content == "answer" and has_text else ""


def grounding_of(completion: Completion, options: ResponseOptions) -> Json:
    """The grounding object; of several tasks the first one's, with those of all in its ``parts``."""
    parts = [part.grounding for part in completion.parts]
    return to_json(completion.grounding, include_raw=options.include_raw, parts=parts)


def found_json(completion: Completion, options: ResponseOptions) -> Json:
    """The keys with what was found: the grounding object, and its objects in another format where one was asked for."""
    found = {"grounding": grounding_of(completion, options)}
    name = options.grounding_format
    if name is None:
        return found
    parts = [render(part.grounding, name) for part in completion.parts]
    rendered = {"name": name, "value": render(completion.grounding, name), "parts": parts}
    return {**found, "grounding_format": rendered}


def extras_json(completion: Completion, meta: ResponseMeta) -> Json:
    """The part of an answer that is this router's own: not in OpenAI's format."""
    return {
        "request_id": meta.request_id,
        "task_resolution": meta.resolution or completion.resolution,
        "image_cache": _image_cache(completion),
        "ignored": [*dict.fromkeys((*meta.ignored, *map(meta.path_of, completion.ignored)))],
        "timings": {name: round(getattr(completion.timings, name), 3) for name in _TIMINGS},
        **({} if meta.report is None else meta.report.json()),
    }


def _image_cache(completion: Completion) -> str | None:
    """Whether the images were encoded before, all of them or some; null without an image."""
    if completion.grounding.image_size is None:
        return None
    cached, all_tokens = completion.usage.cached_tokens, completion.usage.image_tokens
    return "miss" if not cached else "hit" if cached >= all_tokens else "partial"


def logprobs_json(answer: Completion | Chunk, options: ResponseOptions) -> Json:
    """The choice's ``logprobs``, and beside them ``token_ids``."""
    if not options.logprobs:
        return {"logprobs": None}
    steps = answer.top_logprobs or ((),) * len(answer.logprobs)
    tokens = zip(answer.token_bytes, answer.logprobs, steps, strict=True)
    content = [
        {**_token_json(piece, logprob), "top_logprobs": [_token_json(one.token_bytes, one.logprob) for one in step]}
        for piece, logprob, step in tokens
    ]
    return {"logprobs": {"content": content, "refusal": None}, "token_ids": list(answer.token_ids)}


def _token_json(token_bytes: bytes, logprob: float) -> Json:
    """A token with its text; bytes that are not whole characters are spelled ``\\xf0\\x9f``, as OpenAI does."""
    text = token_bytes.decode("utf-8", "backslashreplace")
    return {"token": text, "logprob": logprob, "bytes": list(token_bytes)}
