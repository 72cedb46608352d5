"""Every known kind of bad request gets a proper error, and the next good request its answer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from router.config import RouterConfig
from tests.images import data_url, plain
from tests.router.clients import OTHER_URL
from tests.router.world import (
    CHAT,
    IMAGE,
    URL,
    Bad,
    FakeBackend,
    body,
    check_error,
    client,
    image_part,
    post,
    text_part,
    user,
)

pytestmark = pytest.mark.anyio

CONFIG = RouterConfig(max_body_bytes=200_000, max_image_bytes=20_000, max_image_pixels=1_000_000, max_prompt_chars=1000)
URL_PATH = "messages[0].content[0].image_url.url"


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in body().items() if key != name}


def with_messages(*messages: object) -> dict[str, Any]:
    return {**body(), "messages": list(messages)}


def at(url: str) -> dict[str, Any]:
    return with_messages(user(image_part(url)))


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


BOX = "task.region.box"
BOX_PX = "task.region.box_px"
FIRST = "messages[0].content[0]"
IMAGE_URL = f"{FIRST}.image_url"

IN_PIXELS = {"name": "query", "references": [{"point_px": [1, 1]}]}

BAD = [
    # The body as bytes
    Bad("no body", b"", "invalid_json", None),
    Bad("half a body", b'{"model": "blip-large", "messages": [', "invalid_json", None),
    Bad("no JSON", b"model=blip-large", "invalid_json", None),
    Bad("not UTF-8", b'{"model": "\xff\xfe"}', "invalid_json", None),
    Bad("an array", [body()], "invalid_json", None),
    Bad("a string", '"hello"', "invalid_json", None),
    Bad("null", None, "invalid_json", None),
    Bad("NaN", json.dumps(body(temperature=float("nan"))).encode(), "invalid_json", None),
    Bad("Infinity", json.dumps(body(top_p=float("inf"))).encode(), "invalid_json", None),
    Bad("a number beyond floats", b'{"top_p": 1e999,' + json.dumps(body()).encode()[1:], "invalid_value", "top_p"),
    Bad("an endless number", b'{"seed": ' + b"9" * 10_000 + b"}", "invalid_json", None),
    Bad("too deep", body(extra=nested(64)), "invalid_json", None),
    Bad("far too deep", b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "request_too_large", None, 413),
    Bad("deep enough for the parser's stack", b"[" * 90_000 + b"]" * 90_000, "invalid_json", None),
    Bad("too large", body("x" * 300_000), "request_too_large", None, 413),
    # The model
    Bad("no model", without("model"), "missing_required_parameter", "model"),
    Bad("empty model", body(model=""), "invalid_value", "model"),
    Bad("model is a number", body(model=3), "invalid_type", "model"),
    Bad("unknown model", body(model="gpt-4o"), "model_not_found", "model", 404),
    Bad("model is a path", body(model="../../etc/passwd"), "model_not_found", "model", 404),
    Bad("model with a lone surrogate", body(model="\ud800"), "invalid_value", "model"),
    # Messages
    Bad("no messages", without("messages"), "missing_required_parameter", "messages"),
    Bad("empty messages", with_messages(), "invalid_value", "messages"),
    Bad("messages is a string", body(messages="hi"), "invalid_type", "messages"),
    Bad("message is a string", with_messages("hi"), "invalid_type", "messages[0]"),
    Bad("message without role", with_messages({"content": "hi"}), "missing_required_parameter", "messages[0].role"),
    Bad("unknown role", with_messages({"role": "tool", "content": "hi"}), "invalid_value", "messages[0].role"),
    Bad("content is a number", with_messages({"role": "user", "content": 3}), "invalid_type", "messages[0].content"),
    Bad("part is a string", with_messages(user("hi")), "invalid_type", FIRST),  # type: ignore[arg-type]  # the fault itself
    Bad("part without type", with_messages(user({"text": "hi"})), "invalid_value", FIRST),
    Bad("part of unknown type", with_messages(user({"type": "input_audio"})), "invalid_value", FIRST),
    Bad("text part without text", with_messages(user({"type": "text"})), "missing_required_parameter", f"{FIRST}.text"),
    Bad("text is a number", with_messages(user({"type": "text", "text": 1})), "invalid_type", f"{FIRST}.text"),
    Bad("text with a lone surrogate", body("\ud800"), "invalid_value", "messages[0].content[1].text"),
    Bad("prompt too long", body("x" * 1001), "context_length_exceeded", "messages[0].content"),
    # The image
    Bad(
        "pixels without an image",
        {**with_messages(user(text_part("?"))), "task": IN_PIXELS},
        "invalid_value",
        "messages",
    ),
    Bad("no user", with_messages({"role": "system", "content": "be brief"}), "invalid_value", "messages"),
    Bad("17 images", with_messages(user(*[image_part()] * 17)), "invalid_value", "messages[0].content"),
    Bad(
        "pixels in images of two sizes",
        {**with_messages(user(image_part(), image_part(OTHER_URL))), "task": IN_PIXELS},
        "invalid_value",
        "messages",
    ),
    Bad(
        "the second of two images is broken",
        with_messages(user(image_part(), image_part("data:image/png;base64,"))),
        "empty_image_file",
        "messages[0].content[1].image_url.url",
    ),
    Bad(
        "image of the assistant alone",
        with_messages({**user(image_part()), "role": "assistant"}),
        "invalid_value",
        "messages",
    ),
    Bad("4,097 messages", with_messages(*[0] * 4096, user(image_part())), "invalid_value", "messages"),
    Bad(
        "image_url is a string", with_messages(user({"type": "image_url", "image_url": URL})), "invalid_type", IMAGE_URL
    ),
    Bad(
        "image_url without url",
        with_messages(user({"type": "image_url", "image_url": {}})),
        "missing_required_parameter",
        URL_PATH,
    ),
    Bad(
        "image part without image_url",
        with_messages(user({"type": "image_url"})),
        "missing_required_parameter",
        IMAGE_URL,
    ),
    Bad(
        "url is null",
        with_messages(user({"type": "image_url", "image_url": {"url": None}})),
        "missing_required_parameter",
        URL_PATH,
    ),
    Bad(
        "both url and file_id",
        with_messages(user({"type": "image_url", "image_url": {"url": URL, "file_id": "file-1"}})),
        "invalid_value",
        IMAGE_URL,
    ),
    Bad(
        "file part without file_id",
        with_messages(user({"type": "file", "file": {"filename": "a.png"}})),
        "missing_required_parameter",
        f"{FIRST}.file.file_data",
    ),
    Bad(
        "both file_data and file_id",
        with_messages(user({"type": "file", "file": {"file_data": URL, "file_id": "file-1"}})),
        "invalid_value",
        f"{FIRST}.file",
    ),
    Bad(
        "file part with a document",
        with_messages(user({"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0xLjc="}})),
        "invalid_image_format",
        f"{FIRST}.file.file_data",
    ),
    Bad(
        "unknown file",
        with_messages(user({"type": "file", "file": {"file_id": "file-1"}})),
        "image_file_not_found",
        f"{FIRST}.file.file_id",
    ),
    Bad("address of this machine", at("http://127.0.0.1/cat.png"), "invalid_image_url", URL_PATH),
    Bad("cloud metadata address", at("http://169.254.169.254/latest/meta-data/"), "invalid_image_url", URL_PATH),
    Bad("file address", at("file:///etc/passwd"), "invalid_image_url", URL_PATH),
    Bad("path", at("/etc/passwd"), "invalid_image_url", URL_PATH),
    Bad("bare base64", at(URL.partition(",")[2]), "invalid_image_url", URL_PATH),
    Bad("data URL without base64", at("data:image/png,abc"), "invalid_image_url", URL_PATH),
    Bad("data URL of text", at(data_url(b"hello", "text/plain")), "invalid_image_format", URL_PATH),
    Bad("broken base64", at("data:image/png;base64,@@@@"), "invalid_base64_image", URL_PATH),
    Bad("base64 of another alphabet", at("data:image/png;base64,\u0430AAA"), "invalid_base64_image", URL_PATH),
    Bad("empty image", at("data:image/png;base64,"), "empty_image_file", URL_PATH),
    Bad("text that calls itself an image", at(data_url(b"hello, world")), "invalid_image_format", URL_PATH),
    Bad("unwanted format", at(data_url(plain(8, 8, "TIFF"), "image/tiff")), "invalid_image_format", URL_PATH),
    Bad(
        "svg",
        at(data_url(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml")),
        "invalid_image_format",
        URL_PATH,
    ),
    Bad("too many pixels", at(data_url(plain(1001, 1000))), "image_too_large", URL_PATH),
    Bad("too many bytes", at(data_url(IMAGE + bytes(30_000))), "image_file_too_large", URL_PATH),
    Bad("a header and no more", at(data_url(IMAGE[:12])), "invalid_image_format", URL_PATH),
    # Sampling
    Bad("temperature too high", body(temperature=2.1), "invalid_value", "temperature"),
    Bad("temperature below 0", body(temperature=-0.1), "invalid_value", "temperature"),
    Bad("temperature is a string", body(temperature="0.5"), "invalid_type", "temperature"),
    Bad("temperature is true", body(temperature=True), "invalid_type", "temperature"),
    Bad("top_p below 0", body(top_p=-0.01), "invalid_value", "top_p"),
    Bad("top_p above 1", body(top_p=1.01), "invalid_value", "top_p"),
    Bad("max_tokens is 0", body(max_tokens=0), "invalid_value", "max_tokens"),
    Bad("max_tokens is a fraction", body(max_tokens=1.5), "invalid_type", "max_tokens"),
    Bad("max_tokens beyond reason", body(max_tokens=2**40), "invalid_value", "max_tokens"),
    Bad("max_completion_tokens is 0", body(max_completion_tokens=0), "invalid_value", "max_completion_tokens"),
    Bad("seed is a string", body(seed="7"), "invalid_type", "seed"),
    Bad("seed beyond 64 bits", body(seed=2**63), "invalid_value", "seed"),
    Bad("stop is a number", body(stop=1), "invalid_type", "stop"),
    Bad("five stops", body(stop=list("abcde")), "invalid_value", "stop"),
    Bad("empty stop", body(stop=[""]), "invalid_value", "stop[0]"),
    Bad("stop holds a number", body(stop=["a", 1]), "invalid_type", "stop[1]"),
    Bad("repetition_penalty is 0", body(repetition_penalty=0), "invalid_value", "repetition_penalty"),
    Bad("no_repeat_ngram_size below 0", body(no_repeat_ngram_size=-1), "invalid_value", "no_repeat_ngram_size"),
    Bad("logprobs is a number", body(logprobs=1), "invalid_type", "logprobs"),
    Bad("no beam", body(num_beams=0), "invalid_value", "num_beams"),
    Bad("nine beams", body(num_beams=9), "invalid_value", "num_beams"),
    Bad("beams with sampling", body(num_beams=2, temperature=0.5), "invalid_value", "num_beams"),
    Bad("num_beams is a float", body(num_beams=2.5), "invalid_type", "num_beams"),
    Bad("length_penalty above 8", body(length_penalty=8.1), "invalid_value", "length_penalty"),
    Bad("presence_penalty above 2", body(presence_penalty=2.5), "invalid_value", "presence_penalty"),
    Bad("frequency_penalty is a string", body(frequency_penalty="1"), "invalid_type", "frequency_penalty"),
    Bad("a bias above 100", body(logit_bias={"50256": 101}), "invalid_value", "logit_bias"),
    Bad("a bias for a word", body(logit_bias={"cat": 1}), "invalid_value", "logit_bias.cat"),
    Bad("a bias for -1", body(logit_bias={"-1": 1}), "invalid_value", "logit_bias.-1"),
    Bad("a bias is a string", body(logit_bias={"7": "1"}), "invalid_type", "logit_bias.7"),
    Bad("a list of biases", body(logit_bias=[[7, 1]]), "invalid_type", "logit_bias"),
    Bad("too many biases", body(logit_bias={str(at): 1 for at in range(301)}), "invalid_value", "logit_bias"),
    Bad("top_logprobs alone", body(top_logprobs=5), "invalid_value", "top_logprobs"),
    Bad("top_logprobs without logprobs", body(logprobs=False, top_logprobs=1), "invalid_value", "top_logprobs"),
    Bad("too many top_logprobs", body(logprobs=True, top_logprobs=21), "invalid_value", "top_logprobs"),
    Bad("top_k below -1", body(top_k=-2), "invalid_value", "top_k"),
    Bad("min_p above 1", body(min_p=1.5), "invalid_value", "min_p"),
    Bad("early_stopping is a word", body(early_stopping="never"), "invalid_type", "early_stopping"),
    # What these models do not support
    Bad("a forced tool", body(tool_choice="required"), "unsupported_parameter", "tool_choice"),
    Bad("no choice", body(n=0), "invalid_value", "n"),
    Bad("nine choices", body(n=9), "invalid_value", "n"),
    Bad("half a choice", body(n=1.5), "invalid_type", "n"),
    Bad("a named tool", body(tool_choice={"type": "function"}), "unsupported_parameter", "tool_choice"),
    Bad("a named function", body(function_call={"name": "f"}), "unsupported_parameter", "function_call"),
    Bad("audio", body(audio={"voice": "alloy"}), "unsupported_parameter", "audio"),
    Bad("spoken answers", body(modalities=["text", "audio"]), "unsupported_parameter", "modalities"),
    Bad("drop_params is a string", body(tools=[1], drop_params="yes"), "invalid_type", "drop_params"),
    # The answer's form
    Bad("stream is a string", body(stream="true"), "invalid_type", "stream"),
    Bad("stream_options alone", body(stream_options={"include_usage": True}), "invalid_value", "stream_options"),
    Bad("stream_options is true", body(stream=True, stream_options=True), "invalid_type", "stream_options"),
    Bad(
        "include_usage is a string",
        body(stream=True, stream_options={"include_usage": "yes"}),
        "invalid_type",
        "stream_options.include_usage",
    ),
    Bad("another form", body(response_format={"type": "xml"}), "invalid_value", "response_format.type"),
    Bad("form is a string", body(response_format="json_object"), "invalid_type", "response_format"),
    Bad(
        "schema missing",
        body(response_format={"type": "json_schema"}),
        "missing_required_parameter",
        "response_format.json_schema",
    ),
    Bad(
        "another schema",
        body(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"required": ["b"]}}}),
        "unsupported_parameter",
        "response_format",
    ),
    Bad(
        "schema is a string",
        body(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": "{}"}}),
        "invalid_type",
        "response_format.json_schema.schema",
    ),
    Bad("unknown format of objects", body(grounding_format="yolo"), "invalid_value", "grounding_format"),
    # Tasks
    Bad("task is a number", body(task=1), "invalid_type", "task"),
    Bad("task without name", body(task={"labels": ["dog"]}), "missing_required_parameter", "task.name"),
    Bad("empty task", body(task=""), "invalid_value", "task"),
    Bad("unknown key of a task", body(task={"name": "detect", "score": 1}), "unsupported_parameter", "task.score"),
    Bad("labels is a string", body(task={"name": "detect", "labels": "dog"}), "invalid_type", "task.labels"),
    Bad("empty label", body(task={"name": "detect", "labels": ["a", ""]}), "invalid_value", "task.labels[1]"),
    Bad("unknown length", body(task={"name": "caption", "length": "epic"}), "invalid_value", "task.length"),
    Bad("region without box", body(task={"name": "ocr", "region": {}}), "missing_required_parameter", "task.region"),
    Bad(
        "region in two frames",
        body(task={"name": "ocr", "region": {"box": [0, 0, 1, 1], "box_px": [0, 0, 9, 9]}}),
        "invalid_value",
        "task.region",
    ),
    Bad("pixels beyond", body(task={"name": "ocr", "region": {"box_px": [0, 0, 647, 1]}}), "invalid_value", BOX_PX),
    Bad("pixel NaN", json.dumps(body(task={"region": {"box_px": [float("nan")]}})).encode(), "invalid_json", None),
    Bad("threshold above 1", body(task={"name": "detect", "threshold": 1.5}), "invalid_value", "task.threshold"),
    Bad("no object", body(task={"name": "detect", "max_objects": 0}), "invalid_value", "task.max_objects"),
    Bad("no tasks", body(tasks=[]), "invalid_value", "tasks"),
    Bad("17 tasks", body(tasks=["ocr"] * 17), "invalid_value", "tasks"),
    Bad("one task and several", body(task="ocr", tasks=["ocr"]), "invalid_value", "tasks"),
    Bad(
        "a bad one among tasks",
        body(tasks=["ocr", {"name": "ocr", "region": {}}]),
        "missing_required_parameter",
        "tasks[1].region",
    ),
    Bad("box of three", body(task={"name": "ocr", "region": {"box": [0, 0, 1]}}), "invalid_value", BOX),
    Bad("box in pixels", body(task={"name": "ocr", "region": {"box": [0, 0, 64, 1]}}), "invalid_value", f"{BOX}[2]"),
    Bad("box turned round", body(task={"name": "ocr", "region": {"box": [0.5, 0, 0.1, 1]}}), "invalid_value", BOX),
]


def test_the_table_is_large_and_its_names_differ() -> None:
    assert len({bad.name for bad in BAD}) == len(BAD) >= 40


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
async def test_bad_request(bad: Bad) -> None:
    backend = FakeBackend()
    error = check_error(await post(backend, bad.request, CONFIG), bad.status, bad.code, bad.param)
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) < 600
    assert not backend.asked
    good = await post(backend, body(), CONFIG)
    assert good.status_code == 200


STREAMS = [
    replace(bad, request={**bad.request, "stream": True})
    for bad in BAD
    if isinstance(bad.request, dict) and not {"stream", "stream_options"} & bad.request.keys()
]


@pytest.mark.parametrize("bad", STREAMS, ids=lambda bad: bad.name)
async def test_bad_request_that_streams(bad: Bad) -> None:
    check_error(await post(FakeBackend(), bad.request, CONFIG), bad.status, bad.code, bad.param)


@pytest.mark.parametrize("url", ["file:///etc/shadow-secret", "data:image/png;base64,secret!", "data:x/secret;base64,"])
async def test_no_message_repeats_what_was_sent_as_image(url: str) -> None:
    answer = await post(FakeBackend(), at(url), CONFIG)
    assert answer.status_code == 400
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_url"),
        ("GET", "/v1/completions", 404, "unknown_url"),
        ("POST", "/chat/completions", 404, "unknown_url"),
        ("POST", "/v1/completions", 400, "unknown_url"),
        ("POST", "/v1/messages", 400, "unknown_url"),
        ("DELETE", "/v1/assistants/1", 400, "unknown_url"),
        ("POST", f"{CHAT}/", 400, "unknown_url"),
        ("GET", CHAT, 405, "method_not_supported"),
        ("DELETE", CHAT, 405, "method_not_supported"),
        ("OPTIONS", CHAT, 405, "method_not_supported"),
        ("POST", "/v1/models", 405, "method_not_supported"),
        ("DELETE", "/v1/models/blip-large", 405, "method_not_supported"),
        ("GET", "/v1/models/nobody", 404, "model_not_found"),
        ("GET", "/v1/models/", 404, "model_not_found"),
        ("GET", "/v1/models/no%0Abody", 404, "model_not_found"),
    ],
)
async def test_bad_urls_and_methods(method: str, path: str, status: int, code: str) -> None:
    async with client(FakeBackend()) as http:
        answer = await http.request(method, path)
        check_error(answer, status, code, "model" if code == "model_not_found" else None)
        assert ("allow" in answer.headers) == (status == 405)
        assert (await http.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("path", "guess"),
    [
        ("/chat/completions", CHAT),
        ("/v1/v1/chat/completions", CHAT),
        ("/api/v1/chat/completions", CHAT),
        ("/v1/completions", CHAT),
        ("/models", "/v1/models"),
        ("/query", "/v1/query"),
        ("/v1/embeddings", None),
        ("/v1/audio/speech", None),
        ("/", None),
        ("/" + "x" * 5000, None),
    ],
)
async def test_an_unknown_url_is_told_the_route_that_was_probably_meant(path: str, guess: str | None) -> None:
    """Most often, a client's base URL lacks ``/v1`` or has it twice."""
    async with client(FakeBackend()) as http:
        message = (await http.post(path)).json()["error"]["message"]
    assert message.startswith("Unknown URL." if guess is None else f"Unknown URL. Did you mean {guess!r}?")
    assert ("Did you mean" in message) == (guess is not None)


@pytest.mark.parametrize("where", ["task", "tasks", "region"])
async def test_a_long_key_is_not_repeated_in_full(where: str) -> None:
    key = "k" * 100_000
    fields: dict[str, Any] = {
        "task": {"task": {"name": "detect", key: 1}},
        "tasks": {"tasks": ["caption", {"name": "detect", key: 1}]},
        "region": {"task": {"name": "detect", "region": {key: 1}}},
    }
    answer = await post(FakeBackend(), body(**fields[where]), CONFIG)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "unsupported_parameter"
    assert len(error["param"]) == 256
    assert error["param"].endswith("kkk")
    assert len(answer.content) < 1000
