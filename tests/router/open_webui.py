"""Request bodies as Open WebUI 0.12.4 sends them with its default settings, recorded and told in words of our own.

Its front end uploads an image to Open WebUI, which sends it to the model as a data URL. Beside each question it sends
requests without images: for a title, for tags, and for what the user might ask next.
"""

from __future__ import annotations

from typing import Any

from tests.router.world import image_part, text_part

Json = dict[str, Any]


def _tool(name: str, description: str, properties: Json, required: tuple[str, ...] = ()) -> Json:
    parameters = {"properties": properties, **({"required": list(required)} if required else {}), "type": "object"}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


_COUNT = {"default": 5, "description": "Number of results.", "type": "integer"}
TOOLS = [
    _tool("now", "Tell the time.", {}),
    _tool("find_notes", "Find notes.", {"text": {"type": "string"}, "count": _COUNT}, ("text",)),
    _tool("ask_back", "Ask the user.", {"questions": {"items": {"type": "object"}, "type": "array"}}, ("questions",)),
]
"""Some of the 36 tools that go with every question."""


def question(text: str, *images: str) -> Json:
    """A message with images as data URLs: a list of their files comes first, and the text before the images."""
    if not images:
        return {"role": "user", "content": text}
    ids = [f"00000000-0000-4000-8000-{at:012}" for at in range(len(images))]
    files = "\n".join(
        f'<file type="file" id="{one}" url="{one}" content_type="image/png" name="a.png"/>' for one in ids
    )
    parts = [text_part(f"<attached_files>\n{files}\n</attached_files>\n\n"), text_part(text)]
    return {"role": "user", "content": [*parts, *map(image_part, images)]}


def answer(text: str) -> Json:
    """What a model has answered before."""
    return {"role": "assistant", "content": text}


def chat(model: str, *messages: Json) -> Json:
    """A question, with everything that was said before."""
    return {"stream": True, "model": model, "messages": list(messages), "tools": TOOLS}


def workspace_model(model: str, *messages: Json, **custom: Any) -> Json:
    """A question to a model of the workspace: with a system prompt, parameters, and ``custom`` ones."""
    system = {"role": "system", "content": "You find shapes."}
    return {
        "stream": True,
        "model": model,
        "stream_options": {"include_usage": True},
        "temperature": 0.2,
        "max_tokens": 200,
        "seed": 7,
        "stop": ["###"],
        "top_p": 0.9,
        "top_k": 40,
        **custom,
        "messages": [system, *messages],
    }


def response(model: str, *messages: Json, **more: Any) -> Json:
    """The same question where the connection is set to the Responses API; a system prompt becomes instructions."""
    functions = [{"type": "function", **tool["function"], "strict": False} for tool in TOOLS]
    return {"stream": True, "model": model, "tools": functions, "input": [*map(_item, messages)], **more}


def _item(message: Json) -> Json:
    role, content = message["role"], message["content"]
    parts = [text_part(content)] if isinstance(content, str) else content
    return {"type": "message", "role": role, "content": [_part(role, part) for part in parts]}


def _part(role: str, part: Json) -> Json:
    if part["type"] == "text":
        return {"type": "input_text" if role == "user" else "output_text", "text": part["text"]}
    return {"type": "input_image", "image_url": part["image_url"]["url"], "detail": "auto"}


def background(model: str, wish: str, *said: str, **more: Any) -> Json:
    """A request for something about the chat: a title, tags or further questions. The chat is part of the text."""
    history = "\n".join(f"{('USER', 'ASSISTANT')[at % 2]}: {text}" for at, text in enumerate(said))
    rules = "\n".join(f"- Rule number {number} is about the form of the answer." for number in range(1, 31))
    text = f"### Task:\n{wish}\n### Guidelines:\n{rules}\n### Output:\nJSON format: {{ }}\n### Chat History:\n"
    message = {"role": "user", "content": f"{text}<chat_history>\n{history}\n</chat_history>"}
    return {"model": model, "messages": [message], "stream": False, **more}
