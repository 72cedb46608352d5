"""A completion as the JSON of chat completions, with the grounding object beside the text."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from router.conversation.answer import (
    ResponseMeta,
    ResponseOptions,
    content_of,
    cost_json,
    extras_json,
    found_json,
    logprobs_json,
)
from vlm.types import Completion

Json = dict[str, Any]


def _new_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


@dataclass(frozen=True, slots=True)
class ChatHead:
    """What every event of one answer repeats.

    Attributes:
        meta: What the answers of all formats say.
        fingerprint: The operator's name of the build.
        id: OpenAI's.
    """

    meta: ResponseMeta
    fingerprint: str | None = None
    id: str = field(default_factory=_new_id)

    @property
    def models(self) -> tuple[str, ...]:
        """The model of each choice, where they are of several models."""
        return () if self.meta.report is None else self.meta.report.choices

    def of_choice(self, index: int) -> Json:
        """The keys that only the choices of several models have."""
        return {"model": self.models[index]} if self.models else {}

    def json(self, kind: str) -> Json:
        """The keys that come before ``choices``."""
        tier = self.meta.service_tier
        return {
            "id": self.id,
            "object": kind,
            "created": self.meta.created,
            "model": self.meta.model,
            "system_fingerprint": self.fingerprint,
            **({} if tier is None else {"service_tier": tier}),
        }


def completion_json(completion: Completion, head: ChatHead, options: ResponseOptions) -> Json:
    """The body of a whole answer."""
    return {
        **head.json("chat.completion"),
        "choices": [
            {**_choice_json(index, one, options), **head.of_choice(index)}
            for index, one in enumerate(choices_of(completion))
        ],
        "usage": usage_json(completion, head.meta),
        "x_gigarouter": extras_json(completion, head.meta),
    }


def choices_of(completion: Completion) -> tuple[Completion, ...]:
    """The answers, in the order of their indexes."""
    return completion.choices or (completion,)


def _choice_json(index: int, completion: Completion, options: ResponseOptions) -> Json:
    message = {
        "role": "assistant",
        "content": content_of(completion, options),
        "refusal": None,
        **reasoning_json(completion.reasoning),
        **found_json(completion, options),
    }
    return {
        "index": index,
        "message": message,
        "finish_reason": completion.finish_reason,
        **logprobs_json(completion, options),
    }


def reasoning_json(reasoning: str | None) -> Json:
    """The reasoning before the content, under the name that vLLM and others use; no key where there is none."""
    return {} if reasoning is None else {"reasoning_content": reasoning}


def usage_json(completion: Completion, meta: ResponseMeta) -> Json:
    """Tokens read and written, and what they cost."""
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
        **cost_json(completion, meta),
    }
