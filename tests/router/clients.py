"""Bodies as real clients send them, in miniature: the shapes that chat interfaces, frameworks and pipelines produce."""

from __future__ import annotations

from typing import Any

from tests.images import data_url, plain
from tests.router.world import URL, image_part, text_part

Json = dict[str, Any]

OTHER_URL = data_url(plain(320, 200))
ATTACHED = '<attached_files>\n<file type="image" url="/api/v1/files/0c1f/content"/>\n</attached_files>\n\n'

SEARCH: Json = {
    "type": "function",
    "function": {
        "name": "search_web",
        "description": "Search the web.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    },
}


def open_webui(*texts: str, model: str = "florence-2-base") -> Json:
    """A first question with an attached image: the interface's tools, and its note about the file as a part."""
    return {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [SEARCH],
        "messages": [
            {"role": "system", "content": "You are a helpful assistant. The user is called Kim."},
            {"role": "user", "content": [text_part(ATTACHED), *map(text_part, texts), image_part()]},
        ],
    }


def open_webui_later(text: str, model: str = "moondream-2") -> Json:
    """A further question about the same image: all that was said before is sent again, tool calls included."""
    first = open_webui("What is this?", model=model)
    call = {"id": "call_1", "type": "function", "function": {"name": "search_web", "arguments": '{"query": "squares"}'}}
    return {
        **first,
        "messages": [
            *first["messages"],
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": [text_part("Squares have four sides.")]},
            {
                "role": "assistant",
                "content": [text_part("A square."), image_part("/api/v1/files/77/content")],
                "reasoning_content": "Four sides.",
                "files": [{"type": "image", "url": "/api/v1/files/77/content"}],
            },
            {"role": "user", "content": f"{ATTACHED}{text}"},
        ],
    }


def langchain_agent() -> Json:
    """An agent's second turn: nulls in place of what is absent, a refusal, a function's result, a newer image."""
    return {
        "model": "moondream-2",
        "n": 1,
        "temperature": 0.0,
        "stream": False,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [SEARCH],
        "messages": [
            {"role": "system", "content": "You look at images.", "name": None},
            {"role": "user", "content": [text_part("What is this?"), image_part("https://example.com/gone.png")]},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot see it."}], "refusal": "No."},
            {"role": "function", "name": "look", "content": None},
            {"role": "user", "content": [text_part("And this?"), image_part(OTHER_URL)], "name": "kim"},
        ],
    }


def litellm() -> Json:
    """LiteLLM's proxy: its own keys beside the body, and parts with ``cache_control`` and ``format``."""
    text = {**text_part("<OD>"), "cache_control": {"type": "ephemeral"}}
    part = {"type": "image_url", "image_url": {"url": URL, "detail": "auto", "format": "image/png"}}
    return {
        "model": "florence-2-base",
        "messages": [{"role": "user", "content": [text, part]}],
        "max_tokens": 4096,
        "user": "kim",
        "metadata": {"trace_id": "1"},
        "extra_headers": {},
    }


def docling(text: str, model: str = "florence-2-base") -> Json:
    """docling's description of a figure."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": [image_part(), text_part(text)]}],
        "seed": 42,
        "max_completion_tokens": 200,
        "timeout": 60,
    }


def home_assistant(text: str = "Describe what you see.", model: str = "blip-large") -> Json:
    """LLM Vision of Home Assistant: a title, labels before the images, its own limits."""
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": "You describe what a security camera sees."},
            {"role": "user", "content": [text_part("Image 1:"), image_part(), text_part(text)]},
        ],
        "max_completion_tokens": 100,
        "temperature": 0.0,
        "top_p": 0.9,
    }
