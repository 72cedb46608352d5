"""Bodies for the Responses API as real clients send them, in miniature, and what reads them in tests."""

from __future__ import annotations

import json
from typing import Any

import httpx

from router.backends.base import Backend
from router.config import RouterConfig
from router.images import read_image
from router.responses.format import BuiltResponse, ResponsesFormat
from tests.router.world import URL, client

Json = dict[str, Any]

RESPONSES = "/v1/responses"


def input_text(text: str) -> Json:
    return {"type": "input_text", "text": text}


def input_image(url: str = URL) -> Json:
    return {"type": "input_image", "image_url": url}


def user(*parts: Json) -> Json:
    return {"role": "user", "content": list(parts)}


def asked(text: str | None = None, /, **fields: object) -> Json:
    """A good request."""
    parts = [input_image(), *([] if text is None else [input_text(text)])]
    return {"model": "blip-large", "input": [user(*parts)], **fields}


def read(request: Json, config: RouterConfig = RouterConfig()) -> BuiltResponse:
    """A request read from end to end, as the endpoint does it in two phases."""
    responses = ResponsesFormat(config)
    parsed = responses.parse(json.dumps(request).encode())
    images = [read_image(image.url, config.image_limits, image.param) for image in parsed.images]
    return responses.build(parsed, images, "req_1")


async def post(backend: Backend, request: object, config: RouterConfig | None = None) -> httpx.Response:
    """Send one request; ``request`` is bytes, or anything that JSON holds."""
    content = request if isinstance(request, bytes) else json.dumps(request).encode()
    async with client(backend, config) as http:
        return await http.post(RESPONSES, content=content)


LOOK: Json = {
    "type": "function",
    "name": "look",
    "description": "look",
    "strict": True,
    "parameters": {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]},
}

ANSWER: Json = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "a red square", "annotations": [], "logprobs": []}],
    "grounding": {"version": "1", "objects": []},
}

REASONING: Json = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "Four sides."}],
    "status": "completed",
}


def openai_agents() -> Json:
    """openai-agents 0.24: its tools, and parts with ``detail``; no ``type`` on a message."""
    return {
        "model": "moondream-2",
        "include": [],
        "input": [user(input_text("What is it?"), {**input_image(), "detail": "auto"})],
        "instructions": "You look at images.",
        "tools": [LOOK],
    }


def openai_agents_later(text: str = "And the colour?") -> Json:
    """Its second turn: our answer comes back whole, reasoning and grounding included; and a tool that was called."""
    first = openai_agents()
    call = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"x": "1"}'}
    result = {"type": "function_call_output", "call_id": "call_1", "output": [input_image("file:///etc/passwd")]}
    history = [*first["input"], REASONING, ANSWER, call, result]
    return {
        **first,
        "input": [*history, {"role": "user", "content": text}],
        "reasoning": {"effort": "low", "summary": "auto"},
        "temperature": 0.0,
    }


def pydantic_ai_later() -> Json:
    """pydantic-ai 2.68, second turn: keys in another order, nulls, an answer as a string."""
    image = {"image_url": URL, "type": "input_image", "detail": "auto"}
    return {
        "model": "moondream-2",
        "stream": False,
        "input": [
            user({"text": "What is it?", "type": "input_text"}, image),
            {**REASONING, "encrypted_content": None},
            {"role": "assistant", "content": "a red square"},
            {"role": "user", "content": "And?"},
        ],
        "instructions": "Look.",
    }


def pydantic_ai_tool_output() -> Json:
    """pydantic-ai with a type as its output: the tool that must be called."""
    return {**pydantic_ai_later(), "tool_choice": "required", "tools": [{**LOOK, "name": "final_result"}]}


def ai_sdk(schema: Json | None = None) -> Json:
    """@ai-sdk/openai 3: a system message as an item, earlier answers by reference, settings of its own."""
    settings = {} if schema is None else {"text": {"format": _named(schema)}}
    return {
        "model": "blip-large",
        "input": [
            {"role": "system", "content": "You look at images."},
            user(input_text("What is this?"), input_image()),
            {"type": "item_reference", "id": "msg_41fb"},
            user(input_text("<OD>")),
        ],
        "include": ["reasoning.encrypted_content"],
        "user": "kim",
        **settings,
    }


def _named(schema: Json) -> Json:
    return {"type": "json_schema", "strict": True, "name": "response", "schema": schema}
