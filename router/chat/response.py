"""A completion as OpenAI's JSON, with the places that it found beside the words.

Owns the answer's JSON and the rule for what ``content`` holds. Knows nothing of requests or of how an answer is sent.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from router.asgi.errors import encode
from vlm.grounding_json import objects_json, to_json
from vlm.types import Completion

Json = dict[str, Any]
Content = Literal["answer", "json", "grounding", "raw"]


@dataclass(frozen=True, slots=True)
class ResponseOptions:
    """How the client wants its answer.

    Attributes:
        content: What ``message.content`` holds: the answer (words, or objects as JSON where there are none), always
            JSON, the whole grounding object, or the model's own output.
        include_raw: Put the model's own output into the grounding object.
        logprobs: Report each token's log-probability.
    """

    content: Content = "answer"
    include_raw: bool = False
    logprobs: bool = False


def _new_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


def _now() -> int:
    return int(time.time())


@dataclass(frozen=True, slots=True)
class ResponseMeta:
    """What every piece of one answer repeats."""

    model: str
    request_id: str
    fingerprint: str | None = None
    ignored: tuple[str, ...] = ()
    id: str = field(default_factory=_new_id)
    created: int = field(default_factory=_now)

    def json(self, kind: str) -> Json:
        """The keys that come before ``choices``."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def completion_json(completion: Completion, head: ResponseMeta, shape: ResponseOptions) -> Json:
    """The body of a whole answer."""
    message = {
        "role": "assistant",
        "content": content_of(completion, shape),
        "refusal": None,
        **reasoning_json(completion.reasoning),
        "grounding": grounding_of(completion, shape),
    }
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": completion.finish_reason,
        **logprobs_json(completion.token_ids, completion.logprobs, shape),
    }
    return {
        **head.json("chat.completion"),
        "choices": [choice],
        "usage": usage_json(completion),
        "x_gigarouter": extras_json(completion, head),
    }


def content_of(completion: Completion, shape: ResponseOptions) -> str:
    """The text of the answer, as the client wants it."""
    match shape.content:
        case "raw":
            return completion.grounding.raw
        case "grounding":
            return encode(grounding_of(completion, shape)).decode()
        case "json":
            return encode(_object(completion, shape)).decode()
        case "answer":
            return completion.text if completion.has_text else encode(objects_json(completion.grounding)).decode()


def reasoning_json(reasoning: str | None) -> Json:
    """What was thought before the content, under the name that vLLM and others gave it; no key where nothing was."""
    return {} if reasoning is None else {"reasoning_content": reasoning}


def _object(completion: Completion, shape: ResponseOptions) -> Json:
    """Any answer as a JSON object: the places where there are some, or several answers, else the words."""
    if completion.has_text and not (completion.grounding.detections or completion.parts):
        return {"text": completion.text}
    return grounding_of(completion, shape)


def grounding_of(completion: Completion, shape: ResponseOptions) -> Json:
    """The grounding object; of several tasks the first one's, with those of all in its ``parts``."""
    parts = [part.grounding for part in completion.parts]
    return to_json(completion.grounding, include_raw=shape.include_raw, parts=parts)


def usage_json(completion: Completion) -> Json:
    """Tokens read and written."""
    usage = completion.usage
    prompt = usage.image_tokens + usage.text_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": prompt + usage.completion_tokens,
        "prompt_tokens_details": {
            "image_tokens": usage.image_tokens,
            "text_tokens": usage.text_tokens,
            "cached_tokens": usage.cached_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def extras_json(completion: Completion, head: ResponseMeta) -> Json:
    """What only this router says of an answer."""
    return {
        "request_id": head.request_id,
        "task_resolution": completion.resolution,
        "image_cache": _image_cache(completion),
        "ignored": [*head.ignored, *(name for name in completion.ignored if name not in head.ignored)],
        "timings": {name: round(value, 3) for name, value in asdict(completion.timings).items()},
    }


def _image_cache(completion: Completion) -> str | None:
    """Whether the image had been seen before; null without one."""
    if completion.grounding.image_size is None:
        return None
    return "hit" if completion.usage.cached_tokens else "miss"


def logprobs_json(token_ids: Sequence[int], logprobs: Sequence[float], shape: ResponseOptions) -> Json:
    """The choice's ``logprobs``, and beside them ``token_ids``.

    The router has no tokenizer, so a token's text is not known here: as vLLM does on request, ``token`` is
    ``"token_id:<id>"`` and ``bytes`` is null.
    """
    if not shape.logprobs:
        return {"logprobs": None}
    content: list[Json] = [
        {"token": f"token_id:{token_id}", "logprob": logprob, "bytes": None, "top_logprobs": []}
        for token_id, logprob in zip(token_ids, logprobs, strict=False)
    ]
    return {"logprobs": {"content": content, "refusal": None}, "token_ids": list(token_ids)}
