"""A small world for the router's tests: images, requests, answers, and a backend that plays them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import httpx
from starlette.types import ASGIApp

from router.admission.capacity import Capacity
from router.app import create_app
from router.backends.base import Backend, ModelStatus, unknown
from router.chat.request import parse_chat
from router.config import RouterConfig
from router.conversation.request import ConversationRequest, build_request
from router.images import read_image
from tests.images import data_url, plain
from vlm.types import Box, Chunk, Completion, Detection, Grounding, Point, Request, Timings, Usage

Json = dict[str, Any]
Step = Chunk | Exception

CHAT = "/v1/chat/completions"
SIZE = (640, 480)


IMAGE = plain(*SIZE)
URL = data_url(IMAGE)


def image_part(url: str = URL) -> Json:
    return {"type": "image_url", "image_url": {"url": url}}


def text_part(text: str) -> Json:
    return {"type": "text", "text": text}


def user(*parts: Json) -> Json:
    return {"role": "user", "content": list(parts)}


def body(text: str | None = None, **fields: object) -> Json:
    """A good request."""
    parts = [image_part(), *([] if text is None else [text_part(text)])]
    return {"model": "blip-large", "messages": [user(*parts)], **fields}


def words(text: str = "a red square", *detections: Detection) -> Completion:
    """An answer with text."""
    return Completion(
        text=text,
        token_ids=(11, 12, 2),
        logprobs=(-0.5, -0.25, -0.125),
        grounding=Grounding("caption", "<CAPTION>", text, SIZE, detections, raw=f"{text}</s>"),
        finish_reason="stop",
        usage=Usage(image_tokens=577, text_tokens=3, completion_tokens=3),
        timings=Timings(prepare_ms=1.0, queue_ms=0.5, first_token_ms=4.25, total_ms=9.123456),
        resolution="default",
        token_bytes=(b"a", b" red square", b"</s>"),
    )


BALL = Detection("box", label="ball", box=Box(0.1, 0.2, 0.5, 0.6))
KITE = Detection("point", label="kite", score=0.5, point=Point(0.25, 0.75))


def geometry(*detections: Detection) -> Completion:
    """An answer of geometry alone."""
    grounding = Grounding("detect", "<OD>", None, SIZE, detections or (BALL, KITE), raw="ball<loc_100></s>")
    return replace(words(), text="", has_text=False, grounding=grounding, resolution="native")


def several(*parts: Completion) -> Completion:
    """An answer to several tasks; the first is geometry, so that text and grounding are of different tasks."""
    parts = parts or (geometry(BALL), words(), words("another one"))
    return replace(words(), grounding=parts[0].grounding, parts=parts)


def with_reasoning(reasoning: str = "A shape, red, of four sides.") -> Completion:
    """An answer with reasoning before its text."""
    answer = words()
    usage = replace(answer.usage, reasoning_tokens=2)
    return replace(answer, grounding=replace(answer.grounding, reasoning=reasoning), usage=usage)


def script(completion: Completion) -> tuple[Chunk, ...]:
    """The chunks of an answer: its reasoning, its text in two parts, and the last with the completion."""
    pieces = completion.text.partition(" ")
    reasoning = (completion.reasoning or "").partition(" ")
    return (
        *(Chunk(reasoning=piece) for piece in reasoning if piece),
        replace(tokens_of(completion, 0, 1), text=pieces[0]),
        replace(tokens_of(completion, 1, 2), text="".join(pieces[1:])),
        replace(tokens_of(completion, 2, None), completion=completion),
    )


def tokens_of(completion: Completion, start: int, end: int | None) -> Chunk:
    """A chunk without text that carries these tokens of an answer."""
    tokens = slice(start, end)
    return Chunk(
        token_ids=completion.token_ids[tokens],
        logprobs=completion.logprobs[tokens],
        token_bytes=completion.token_bytes[tokens],
        top_logprobs=completion.top_logprobs[tokens],
    )


def of_choices(*answers: Completion) -> Completion:
    """An answer of several choices; usage counts the tokens of all."""
    generated = sum(one.usage.completion_tokens for one in answers)
    return replace(answers[0], choices=answers, usage=replace(answers[0].usage, completion_tokens=generated))


def chosen_script(completion: Completion) -> tuple[Chunk, ...]:
    """The chunks of an answer of several choices: the last choice is always the first to have a chunk."""
    steps = zip_longest(*(script(one) for one in completion.choices))
    pieces = (
        replace(chunk, index=index, completion=None)
        for step in steps
        for index, chunk in reversed([*enumerate(step)])
        if chunk is not None
    )
    return (*(Chunk(choices=(piece,)) for piece in pieces), Chunk(completion=completion))


def read_chat(request: bytes, config: RouterConfig) -> ConversationRequest:
    """A chat request read from end to end, as the endpoint does it in two phases."""
    parsed = parse_chat(request, config)
    images = [read_image(image.url, config.image_limits, image.param) for image in parsed.images]
    return build_request(parsed, images, config)


class FakeBackend:
    """Plays a script for every request, and keeps the requests that it got."""

    def __init__(
        self, steps: Sequence[Step] = script(words()), *, pause_s: float = 0.0, statuses: Sequence[ModelStatus] = ()
    ) -> None:
        self.steps = steps
        self.pause_s = pause_s
        self.statuses = statuses or (
            ModelStatus("blip-large", ready=True, detail="running"),
            ModelStatus("florence-2-base", ready=True, detail="running"),
        )
        self.asked: list[tuple[str, Request]] = []
        self.running = 0
        self.closed = 0

    async def generate(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        if model not in {status.name for status in self.statuses}:
            raise unknown(model)
        self.asked.append((model, request))
        self.running += 1
        try:
            for step in self.steps:
                await asyncio.sleep(self.pause_s)
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            self.running -= 1
            self.closed += 1

    async def models(self) -> Sequence[ModelStatus]:
        return self.statuses

    def capacity(self, model: str) -> Capacity:
        return Capacity(1)

    def serves(self, model: str) -> bool:
        return True

    def names(self) -> Collection[str]:
        return [status.name for status in self.statuses]

    async def asleep(self, model: str) -> bool:
        return False


@dataclass(frozen=True)
class Bad:
    """A request and the error that it must get, some of whose words are ``words``."""

    name: str
    request: object
    code: str | None
    param: str | None
    status: int = 400
    words: str = ""


def client(backend: Backend, config: RouterConfig | None = None) -> httpx.AsyncClient:
    """A client that talks to the router without a network."""
    app = create_app(backend, config or RouterConfig())
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router")


async def post(backend: Backend, request: object, config: RouterConfig | None = None) -> httpx.Response:
    """Send one chat request; ``request`` is bytes, or anything that JSON holds."""
    content = request if isinstance(request, bytes) else json.dumps(request).encode()
    async with client(backend, config) as http:
        return await http.post(CHAT, content=content, headers={"content-type": "application/json"})


def events(answer: str) -> list[Json]:
    """The JSON of every server-sent event but ``[DONE]``."""
    lines = [line.removeprefix("data: ") for line in answer.split("\n\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def check_error(answer: httpx.Response, status: int, code: str | None, param: str | None) -> Json:
    """Hold an answer against the error contract."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error: Json = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert (error["code"], error["param"]) == (code, param), error
    return error


async def talk(
    app: ASGIApp, path: str, messages: Sequence[Json], *, reads: bool = True, until: bytes = b""
) -> list[Json]:
    """Speak ASGI to ``app``: it receives ``messages`` one by one, and then waits for ever. What it sent.

    A client that does not read stops at the first piece of an answer that begins with ``until``.
    """
    sent: list[Json] = []
    waiting = iter(messages)

    async def receive() -> Json:
        for message in waiting:
            if message["type"] == "http.disconnect":
                await asyncio.sleep(0.05)
            return message
        await asyncio.sleep(60)
        raise AssertionError("nobody waits that long")

    async def send(message: Any) -> None:
        sent.append(message)
        if not reads and message["type"] == "http.response.body" and message["body"].startswith(until):
            await asyncio.sleep(60)

    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
             "root_path": "", "headers": [], "http_version": "1.1", "scheme": "http"}  # fmt: skip
    await asyncio.wait_for(app(scope, receive, send), 5)
    return sent
