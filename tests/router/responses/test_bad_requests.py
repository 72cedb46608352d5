"""Every known kind of bad request for a response gets a proper error, whose path leads into its own body."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from router.config import RouterConfig
from router.responses.request import RENAMED
from tests.router.responses.clients import RESPONSES, asked, input_image, input_text, post, user
from tests.router.world import URL, Bad, FakeBackend, check_error, client

pytestmark = pytest.mark.anyio

CONFIG = RouterConfig(max_body_bytes=200_000, max_image_bytes=20_000, max_image_pixels=1_000_000, max_prompt_chars=1000)
FIRST = "input[0].content[0]"
PDF = "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.7 " + b"x" * 64).decode()
FORMAT = "text.format"


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in asked().items() if key != name}


def with_input(*items: object) -> dict[str, Any]:
    return {**asked(), "input": list(items)}


def of_parts(*parts: object) -> dict[str, Any]:
    return with_input({"role": "user", "content": list(parts)})


def formatted(**fields: object) -> dict[str, Any]:
    return {**asked(), "text": {"format": fields}}


NEEDS_COLOUR = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}
IN_PIXELS = {"name": "query", "references": [{"point_px": [1, 1]}]}

BAD = [
    Bad("no JSON", b"model=blip-large", "invalid_json", None),
    Bad("too large", asked("x" * 300_000), "request_too_large", None, 413),
    Bad("no model", without("model"), "missing_required_parameter", "model"),
    Bad("unknown model", asked(model="gpt-4o"), "model_not_found", "model", 404),
    # Input
    Bad("no input", without("input"), "missing_required_parameter", "input"),
    Bad("empty input", with_input(), "invalid_value", "input"),
    Bad("input is a number", {**asked(), "input": 3}, "invalid_type", "input"),
    Bad("input is null", {**asked(), "input": None}, "invalid_type", "input"),
    Bad("nobody asks", with_input({"role": "assistant", "content": "hi"}), "invalid_value", "input",
        words="role is user"),
    Bad("only a call's result", with_input({"type": "function_call_output", "output": "1"}), "invalid_value", "input",
        words="role is user"),
    Bad("another kind of item", with_input({"type": "input_text", "role": "user", "content": "hi"}), "invalid_value",
        "input[0].type"),
    Bad("text with a lone surrogate", {**asked(), "input": "\ud800"}, "invalid_value", "input"),
    Bad("text is too long", {**asked(), "input": "x" * 1001}, "context_length_exceeded", "input"),
    Bad("text of a message is too long", asked("x" * 1001), "context_length_exceeded", "input[0].content"),
    Bad("too many items", with_input(*[0] * 4096, user(input_image())), "invalid_value", "input"),
    Bad("an image within the text", {**asked(), "input": f"what is {URL}?"}, "invalid_value", "input",
        words='{"type": "input_image", "image_url": "data:image/png;base64,..."}'),
    Bad("content is a number", with_input({"role": "user", "content": 3}), "invalid_type", "input[0].content"),
    Bad("a part of chat", of_parts({"type": "text", "text": "hi"}), "invalid_value", FIRST,
        words="input_text, input_image"),
    Bad("text is a number", of_parts({"type": "input_text", "text": 1}), "invalid_type", f"{FIRST}.text"),
    Bad("a document", of_parts({"type": "input_file", "filename": "a.pdf", "file_data": PDF}), "invalid_image_format",
        f"{FIRST}.file_data", words="a PDF document"),
    Bad("no such file as a file", of_parts({"type": "input_file", "file_id": "file-1"}), "image_file_not_found",
        f"{FIRST}.file_id"),
    Bad("a file without a source beside the image of an earlier turn",
        with_input(user(input_image(), {"type": "input_file"}), user(input_text("?"))), "missing_required_parameter",
        "input[0].content[1]", words="file_id, file_data, file_url"),
    Bad("a file with two sources", of_parts({"type": "input_file", "file_url": URL, "file_data": URL}),
        "invalid_value", FIRST),
    # Images
    Bad("image without a source", of_parts({"type": "input_image"}), "missing_required_parameter", FIRST,
        words="image_url, file_id"),
    Bad("image with two sources", of_parts({**input_image(), "file_id": "file-1"}), "invalid_value", FIRST),
    Bad("image_url of chat", of_parts({"type": "input_image", "image_url": {"url": "data:"}}), "invalid_type",
        f"{FIRST}.image_url"),
    Bad("no such file", of_parts({"type": "input_image", "file_id": "file-1"}), "image_file_not_found",
        f"{FIRST}.file_id"),
    Bad("a path", of_parts(input_image("file:///etc/passwd")), "invalid_image_url", f"{FIRST}.image_url"),
    Bad("not an image", of_parts(input_text("?"), input_image("data:image/png;base64,aGVsbG8=")),
        "invalid_image_format", "input[0].content[1].image_url"),
    Bad("17 images", of_parts(*[input_image()] * 17), "invalid_value", "input[0].content"),
    Bad("pixels without an image", {**of_parts(input_text("?")), "task": IN_PIXELS}, "invalid_value", "input",
        words="input_image part"),
    # Settings
    Bad("max_output_tokens is 0", asked(max_output_tokens=0), "invalid_value", "max_output_tokens"),
    Bad("temperature", asked(temperature=3), "invalid_value", "temperature"),
    Bad("top_logprobs alone", asked(top_logprobs=2), "invalid_value", "top_logprobs",
        words="message.output_text.logprobs"),
    Bad("include is a string", asked(include="usage"), "invalid_type", "include"),
    Bad("17 includes", asked(include=["usage"] * 17), "invalid_value", "include"),
    Bad("effort", asked(reasoning={"effort": "huge"}), "invalid_value", "reasoning.effort", words="'low'"),
    Bad("reasoning is a string", asked(reasoning="low"), "invalid_type", "reasoning"),
    Bad("17 metadata", asked(metadata={f"{at}": "" for at in range(17)}), "invalid_value", "metadata"),
    Bad("metadata of numbers", asked(metadata={"a": 1}), "invalid_type", "metadata.a"),
    Bad("long metadata", asked(metadata={"a": "x" * 513}), "string_above_max_length", "metadata.a"),
    Bad("truncation", asked(truncation="some"), "invalid_value", "truncation"),
    Bad("stream_options without a stream", asked(stream_options={"include_obfuscation": False}), "invalid_value",
        "stream_options"),
    Bad("unknown task", asked(task={"name": "caption", "lenght": "short"}), "unsupported_parameter", "task.lenght"),
    # The format of the text
    Bad("format without type", formatted(name="x"), "invalid_value", FORMAT),
    Bad("a grammar", formatted(type="grammar"), "invalid_value", FORMAT, words="json_schema"),
    Bad("no schema", formatted(type="json_schema", name="x"), "missing_required_parameter", f"{FORMAT}.schema"),
    Bad("no name", formatted(type="json_schema", schema={}), "missing_required_parameter", f"{FORMAT}.name"),
    Bad("schema of chat", formatted(type="json_schema", json_schema={"name": "x"}), "unsupported_parameter",
        f"{FORMAT}.json_schema"),
    Bad("impossible schema", formatted(type="json_schema", name="x", schema=NEEDS_COLOUR), "unsupported_parameter",
        FORMAT, words="/v1/schemas/grounding.json"),
    Bad("an endless number", json.dumps(formatted(type="json_schema", name="x", schema={"a": 0.5})).replace(
        "0.5", "1e400").encode(), "invalid_value", f"{FORMAT}.schema.a", words="finite"),
    # What needs storage, or cannot be done
    Bad("an earlier response", asked(previous_response_id="resp_1"), "unsupported_parameter", "previous_response_id",
        words="Send the whole conversation in input"),
    Bad("even where fields may be dropped", asked(previous_response_id="resp_1", drop_params=True),
        "unsupported_parameter", "previous_response_id"),
    Bad("a conversation", asked(conversation={"id": "conv_1"}), "unsupported_parameter", "conversation",
        words="Send the whole conversation in input"),
    Bad("a prompt template", asked(prompt={"id": "pmpt_1"}), "unsupported_parameter", "prompt", words="text in input"),
    Bad("background", asked(background=True), "unsupported_parameter", "background", words="Leave it out"),
    Bad("background is a word", asked(background="yes"), "invalid_type", "background"),
    Bad("a tool that must be called", asked(tools=[{}], tool_choice="required"), "unsupported_parameter", "tool_choice",
        words="does not support tools"),
    Bad("a named tool", asked(tool_choice={"type": "function", "name": "x"}), "unsupported_parameter", "tool_choice"),
    Bad("one of some tools", asked(tool_choice={"type": "allowed_tools", "mode": "required"}), "unsupported_parameter",
        "tool_choice"),
    Bad("several answers", asked(n=2), "unsupported_parameter", "n"),
    Bad("moderation", asked(moderation={"model": "x"}), "unsupported_parameter", "moderation"),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
@pytest.mark.parametrize("stream", [False, True])
async def test_bad_requests(bad: Bad, *, stream: bool) -> None:
    request = bad.request
    if isinstance(request, dict) and "stream_options" not in request:
        request = {**request, "stream": stream}
    error = check_error(await post(FakeBackend(), request, CONFIG), bad.status, bad.code, bad.param)
    assert bad.words in error["message"]


@pytest.mark.parametrize("name", sorted(RENAMED))
async def test_a_field_of_chat_is_refused_with_its_name_here(name: str) -> None:
    for value in (7, 0):
        request = {**without("input"), name: value}
        error = check_error(await post(FakeBackend(), request), 400, "unsupported_parameter", name)
        assert f"send {RENAMED[name]} instead" in error["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{RESPONSES}/resp_1"),
        ("DELETE", f"{RESPONSES}/resp_1"),
        ("POST", f"{RESPONSES}/resp_1/cancel"),
        ("GET", f"{RESPONSES}/resp_1/input_items"),
    ],
)
async def test_earlier_responses_are_not_found_and_nothing_looks_like_an_unknown_model(method: str, path: str) -> None:
    async with client(FakeBackend()) as http:
        error = check_error(await http.request(method, path), 404, "response_not_found", None)
        assert "not stored" in error["message"]
        check_error(await http.request("POST", f"{RESPONSES}/resp_1/elsewhere"), 400, "unknown_url", None)
        check_error(await http.get(RESPONSES), 405, "method_not_supported", None)
