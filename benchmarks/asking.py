"""Questions whose answers are known, and how requests for them end: the clients of programs that break a system.

A question is known by the answer that it gets while nothing is broken: greedy, by beams, drawn with a seed, with
log-probabilities. Of what is drawn without a seed, only the end is checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal

import httpx

from tests.images import data_url, scenes

PATH = "/v1/chat/completions"
IMAGES = 6
TOKENS = 40
"""Of an answer."""
LONG: Mapping[str, Any] = {"num_beams": 1, "repetition_penalty": 10.0, "temperature": 0}
"""Answers of as many tokens as are allowed: no answer's end is likely under this penalty."""
DRAWN: Mapping[str, Any] = {"num_beams": 1, "temperature": 1.5}
KINDS: tuple[Mapping[str, Any], ...] = (
    LONG, {**LONG, "stream": True}, {"num_beams": 3}, {**DRAWN, "seed": 7, "stream": True},
    {**DRAWN, "seed": 7}, {**LONG, "stream": True, "logprobs": True}, DRAWN, {**DRAWN, "stream": True},
)  # fmt: skip

Outcome = Literal["answered", "refused", "cut", "unanswered", "differs"]
"""``refused`` with a status other than 200; ``cut`` in the middle of a stream; ``unanswered``: the connection ended
before an answer began; ``differs`` from the answer that is known."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request, and the text of its answer where that is known.

    Attributes:
        body: That of the request.
        text: Of the answer of its model.
        elsewhere: Of the answers of the other models that may give one, by model.
    """

    body: Mapping[str, Any]
    text: str | None = None
    elsewhere: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def streams(self) -> bool:
        """Whether the answer is to be streamed."""
        return bool(self.body.get("stream"))


@dataclass(frozen=True, slots=True)
class Reply:
    """How a request ended.

    Attributes:
        text: Of the answer, or of the error; of a stream that was cut, the message of the error event.
        status: That of the answer; None if there was none.
        code: Of our own error; "" where the answer is none of ours, as one of a proxy.
        model: Whose answer it is.
        routing: What the answer says of the models that were asked, where several may be.
    """

    outcome: Outcome
    text: str
    status: int | None = 200
    code: str = ""
    model: str = ""
    routing: Mapping[str, Any] | None = None

    @property
    def by_router(self) -> bool:
        """Whether the router has said how the request ended; a proxy, or a connection that ends, cannot."""
        return self.outcome in ("answered", "differs") or bool(self.code)


async def known_questions(http: httpx.AsyncClient, model: str, tokens: int = TOKENS) -> list[Question]:
    """Questions of all kinds about all images, each with the answer that it gets while nothing is broken."""
    bodies = [_body(model, image, {"max_tokens": tokens, **kind}) for image, kind in product(scenes(IMAGES), KINDS)]
    found = []
    for body in bodies:
        repeatable = not body.get("temperature") or "seed" in body
        text = (await ask(http, {**body, "stream": False})).text if repeatable else None
        found.append(Question(body, text))
    return found


def _body(model: str, image: bytes, kind: Mapping[str, Any]) -> dict[str, Any]:
    content = [{"type": "image_url", "image_url": {"url": data_url(image)}}]
    return {"model": model, "messages": [{"role": "user", "content": content}], **kind}


async def put(http: httpx.AsyncClient, question: Question) -> Reply:
    """Ask, and compare with the answer that is known."""
    reply = await ask(http, question.body)
    text = question.elsewhere.get(reply.model, question.text)
    if reply.outcome != "answered" or (text in (None, reply.text) and _is_routed(reply.routing, reply.model)):
        return reply
    return replace(reply, outcome="differs")


def _is_routed(routing: Mapping[str, Any] | None, model: str) -> bool:
    """Whether one model has answered, and the answer says that it was this one."""
    if routing is None:
        return True
    answered = [one["model"] for one in routing["tried"] if one["status"] == "answered"]
    return answered == [model] and routing["chosen"] == model


def falling_back(first: Sequence[Question], second: Sequence[Question]) -> list[Question]:
    """The questions to one model, which another may answer instead; both were asked the same."""
    return [
        replace(
            one,
            body={**one.body, "models": [one.body["model"], other.body["model"]]},
            elsewhere={other.body["model"]: other.text},
        )
        for one, other in zip(first, second, strict=True)
    ]


async def ask(http: httpx.AsyncClient, body: Mapping[str, Any]) -> Reply:
    """Ask once; nothing is tried again."""
    try:
        return await (_ask_for_stream if body.get("stream") else _ask_for_all)(http, body)
    except httpx.HTTPError as error:
        return Reply("unanswered", repr(error), None)


async def _ask_for_all(http: httpx.AsyncClient, body: Mapping[str, Any]) -> Reply:
    answer = await http.post(PATH, json=body)
    if answer.status_code != 200:
        return _refused(answer.status_code, answer.content)
    body = answer.json()
    text = body["choices"][0]["message"]["content"]
    return Reply("answered", text, model=body["model"], routing=body["x_gigarouter"].get("routing"))


async def _ask_for_stream(http: httpx.AsyncClient, body: Mapping[str, Any]) -> Reply:
    async with http.stream("POST", PATH, json=body) as answer:
        if answer.status_code != 200:
            return _refused(answer.status_code, await answer.aread())
        try:
            return await _read_stream(answer)
        except httpx.HTTPError as error:
            return Reply("cut", f"the stream has no end: {error!r}")


async def _read_stream(answer: httpx.Response) -> Reply:
    text, model, routing = "", "", None
    async for line in answer.aiter_lines():
        if line == "data: [DONE]":
            return Reply("answered", text, model=model, routing=routing)
        if line.startswith("data: "):
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                return Reply("cut", event["error"]["message"], code=str(event["error"]["code"]))
            model = event.get("model", model)
            routing = event.get("x_gigarouter", {}).get("routing", routing)
            text += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    return Reply("cut", "the stream has no end")


def _refused(status: int, content: bytes) -> Reply:
    try:
        error = json.loads(content)["error"]
        return Reply("refused", str(error["message"]), status, str(error["code"]))
    except (ValueError, KeyError, TypeError):  # not the router's
        return Reply("refused", content.decode(errors="replace")[:200], status)
