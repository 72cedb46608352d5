"""Server-sent events as bytes."""

from __future__ import annotations

import json

from router.asgi.sse import event


def test_an_event_is_one_line_however_a_client_ends_lines() -> None:
    body = {"text": "".join(map(chr, range(0x2100)))}
    sent = event(body)
    assert sent.endswith(b"\n\n")
    [line] = sent.decode().rstrip("\n").splitlines()
    assert json.loads(line.removeprefix("data: ")) == body
