"""What the tests ask the whole system over HTTP."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

import httpx

from tests.deployments.system import ROOT, System
from tests.images import data_url

IMAGE = (ROOT / "examples" / "circle-and-square.png").read_bytes()


@dataclass(frozen=True)
class Question:
    model: str
    text: str = ""
    image: bytes | None = IMAGE

    def messages(self) -> Any:
        parts: list[dict[str, Any]] = []
        if self.image is not None:
            parts.append({"type": "image_url", "image_url": {"url": data_url(self.image)}})
        if self.text:
            parts.append({"type": "text", "text": self.text})
        return [{"role": "user", "content": parts}]

    def body(self, **fields: Any) -> dict[str, Any]:
        return {"model": self.model, "messages": self.messages(), **fields}

    def post(self, system: System, **fields: Any) -> httpx.Response:
        return httpx.post(f"{system.url}/v1/chat/completions", json=self.body(**fields), timeout=60)

    def answer(self, system: System, **fields: Any) -> Any:
        """The body of a good answer."""
        answer = self.post(system, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()


def check_error(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code


def connect(system: System, body: dict[str, Any]) -> socket.socket:
    """Send a request without waiting for its answer."""
    connection = socket.create_connection(("127.0.0.1", system.port))
    request = httpx.Request("POST", f"{system.url}/v1/chat/completions", json=body)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    connection.sendall(f"POST {request.url.path} HTTP/1.1\r\n{head}\r\n".encode() + request.read())
    return connection
