"""A client of an ASGI application that sends its body as it likes, on a clock of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Json = dict[str, Any]
Part = bytes | float
"""What a client sends next, or the seconds for which it sends nothing."""

PATH = "/v1/chat/completions"


def scope_of(path: str = PATH, method: str = "POST", **headers: str) -> Scope:
    """An HTTP request at 127.0.0.1:8000; underscores in the names of headers stand for hyphens."""
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
            "root_path": "", "headers": raw, "http_version": "1.1", "scheme": "http",
            "server": ("127.0.0.1", 8000)}  # fmt: skip


class Connection:
    """One request, and what comes back. It leaves when it has nothing more to send and ``leaves`` is true."""

    def __init__(self, scope: Scope, parts: Sequence[Part] = (), *, ends: bool = True, leaves: bool = False) -> None:
        self.scope = scope
        self.sent: list[Message] = []
        self.taken = 0
        self._leaves = leaves
        self._messages = self._arriving(parts, ends=ends)

    async def through(self, app: ASGIApp) -> Connection:
        await app(self.scope, self.receive, self.send)
        return self

    async def receive(self) -> Message:
        return await anext(self._messages)

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def _arriving(self, parts: Sequence[Part], *, ends: bool) -> AsyncIterator[Message]:
        for index, part in enumerate(parts):
            if isinstance(part, float):
                await asyncio.sleep(part)
                continue
            self.taken += len(part)
            more = not ends or index + 1 < len(parts)
            yield {"type": "http.request", "body": part, "more_body": more}
        if not parts and ends:
            yield {"type": "http.request", "body": b"", "more_body": False}
        if not self._leaves:
            await asyncio.Event().wait()
        yield {"type": "http.disconnect"}

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def code(self) -> str:
        """The code of an error in the contract."""
        error = json.loads(self.body)["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert self.headers["content-type"] == "application/json"
        assert self.headers["x-request-id"]
        return str(error["code"])


class Application:
    """Answers each request with its body, once ``answers`` is set; keeps the scopes that it got."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.messages: list[Message] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        message = await receive()
        self.messages.append(message)
        await self.answers.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": message["body"]})
