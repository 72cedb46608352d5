"""Lines of the log: each has the id of its request, and none a part of one."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextvars import Context, copy_context
from logging.handlers import MemoryHandler
from typing import Any

import pytest

from logs.lines import JsonFormatter, Stamp, place_of, set_up
from logs.request_id import REQUEST_ID
from logs.trace_id import TRACE_ID
from router.backends.base import Backend, LocalBackend
from router.config import RouterConfig
from router.resilience.resilient import ResilientBackend
from router.resilience.retry_policy import RetryPolicy
from tests.router.resilience.world import Scripted
from tests.router.world import CHAT, IMAGE, Json, body, client, image_part, script, text_part, user, words
from vlm.errors import EngineClosed, EngineFailure, Overloaded, ReplicaLost
from vlm.types import Chunk, Request

pytestmark = pytest.mark.anyio

BUG = "xyzzy-bug"
"""A variable, since a traceback shows the line of the code."""


class Log:
    """What a process writes whose loggers have been set up."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[Json]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def log() -> Iterator[Log]:
    """JSON lines of everything that the router and the models' side log."""
    made = Log()
    loggers = [logging.getLogger(name) for name in ("router", "vlm")]
    for one in loggers:
        one.addHandler(made.handler)
        one.setLevel(logging.DEBUG)
    set_up(loggers[0], "json", lambda: {"replica": "ab12"})
    yield made
    for one in loggers:
        one.removeHandler(made.handler)
        one.setLevel(logging.NOTSET)


def secret_body(**fields: Any) -> Json:
    """Every part of a request in which a client may write something."""
    content = user(image_part(), text_part("xyzzy-prompt"))
    return body(**{
        "messages": [content],
        "stop": ["xyzzy-stop"],
        "task": {"name": "query", "text": "xyzzy-label"},
        "user": "xyzzy-key",
        **fields,
    })  # fmt: skip


UNREACHABLE = "http://user.invalid/xyzzy-path.png?token=xyzzy-query"
ATTEMPTS = RetryPolicy(first_pause_s=0.001, longest_pause_s=0.001)
GOOD = script(words())
SOME = GOOD[:2]


def resilient(*steps: Any) -> Backend:
    return ResilientBackend(Scripted(*steps), ATTEMPTS)


class Broken:
    """An engine whose fault quotes the request."""

    async def generate(self, request: Request) -> Any:
        if request.stream:
            yield Chunk("a")
        raise KeyError(BUG, request.prompt)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("backend", "fields"),
    [
        (resilient(GOOD), {}),
        (resilient([ReplicaLost("lost")], [Overloaded("full")], GOOD), {}),
        (resilient([*SOME, EngineClosed("closed")], GOOD), {}),
        (resilient([EngineFailure("a failure")]), {}),
        (resilient([ReplicaLost("lost")], [ReplicaLost("lost")], [ReplicaLost("lost")]), {}),
        (LocalBackend({"blip-large": Broken()}), {}),
        (resilient(GOOD), {"model": "xyzzy-prompt"}),
        (resilient(GOOD), {"messages": [user(image_part(UNREACHABLE), text_part("xyzzy-prompt"))]}),
        (resilient(GOOD), {"messages": [user(image_part("data:image/png;base64,eHl6enk"), text_part("xyzzy-prompt"))]}),
        (resilient(GOOD), {"temperature": "xyzzy-prompt"}),
    ],
)
async def test_every_line_has_the_id_of_its_request_and_nothing_of_it(
    backend: Backend, fields: Json, stream: bool, log: Log
) -> None:
    content = json.dumps(secret_body(stream=stream, **fields)).encode()
    headers = {"authorization": "Bearer xyzzy-key", "x-request-id": "req-of-this-test"}
    async with client(backend, RouterConfig(image_download_timeout_s=1.0)) as http:
        await http.post(f"{CHAT}?key=xyzzy-query", content=content, headers=headers)
    assert log.lines[-1]["path"] == CHAT
    assert {line["request_id"] for line in log.lines} == {"req-of-this-test"}
    assert {line["replica"] for line in log.lines} == {"ab12"}
    assert "xyzzy" not in log.text
    assert IMAGE[:8].hex() not in log.text


async def test_retries_say_for_programs_what_they_say_for_people(log: Log) -> None:
    backend = resilient([ReplicaLost("lost")], [ReplicaLost("lost")])
    async with client(backend) as http:
        await http.post(CHAT, content=json.dumps(body()).encode())
    again, ended, access = log.lines
    assert {key: again[key] for key in ("model", "attempt", "reason")} == {
        "model": "blip-large",
        "attempt": 2,
        "reason": "lost",
    }
    assert ended["reason"] == "lost too often"
    assert (access["method"], access["status"]) == ("POST", 500)
    assert access["duration_ms"] >= 0


def record(name: str = "router.x", error: BaseException | None = None, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.ERROR, "file.py", 1, "a %s\nline", ("long",), None)
    if error is not None:
        made.exc_info = (type(error), error, error.__traceback__)
    made.__dict__.update(more)
    return made


def raised(text: str) -> Exception:
    try:
        float(text)
    except ValueError as error:
        return error
    raise AssertionError(text)


def stamped(made: logging.LogRecord, request_id: str = "") -> logging.LogRecord:
    def work() -> bool:
        REQUEST_ID.set(request_id)
        return Stamp().filter(made)

    assert copy_context().run(work)
    return made


def test_a_line_is_one_line_with_its_time_in_utc() -> None:
    made = record()
    made.created = 1_700_000_000.125
    line = JsonFormatter({"application": "m"}).format(made)
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.125+00:00",
        "level": "ERROR",
        "application": "m",
        "logger": "router.x",
        "message": "a long\nline",
    }


def test_the_id_of_serve_is_kept_beside_ours() -> None:
    line = json.loads(JsonFormatter({}).format(stamped(record(request_id="of-serve"), "ours")))
    assert (line["request_id"], line["serve_request_id"]) == ("ours", "of-serve")
    assert stamped(record(request_id="of-serve")).__dict__["request_id"] == "of-serve"


@pytest.mark.parametrize(
    ("name", "kept"), [("router.asgi.x", False), ("vlm.engine.prepare", False), ("vlm.decoding.threads", False),
                       ("vlm.engine.core.answers", False), ("vlm.engine.core", True), ("ray.serve", True),
                       ("routers", True)],
)  # fmt: skip
def test_only_exceptions_that_cannot_quote_a_request_keep_their_text(name: str, kept: bool) -> None:
    made = stamped(record(name, raised("a secret")))
    for formatter in (JsonFormatter({}), logging.Formatter("%(message)s")):
        line = formatter.format(made)
        assert "ValueError" in line
        assert "test_lines.py" in line
        assert ("a secret" in line) is kept


def test_place_of_an_exception_is_without_its_text() -> None:
    assert "secret" not in place_of(raised("secret"))
    assert place_of(None) == ""


def chained(*, hidden: bool = False) -> Exception:
    try:
        try:
            float("a secret")
        except ValueError as error:
            raise KeyError("another") from (None if hidden else error)
    except KeyError as error:
        return error
    raise AssertionError("float takes no words")


def test_what_led_to_an_exception_is_said_before_it_without_its_text() -> None:
    said = place_of(chained())
    order = [said.index(one) for one in ('float("a secret")', "ValueError", "which led to", "raise KeyError")]
    assert order == sorted(order)
    assert "led to" not in place_of(chained(hidden=True))
    looped = chained()
    looped.__cause__ = looped
    assert place_of(looped).count("led to") == 0


def warn(logger: logging.Logger, text: str, request_id: str) -> None:
    REQUEST_ID.set(request_id)
    logger.warning(text)


def test_a_buffered_line_has_the_id_of_when_it_was_logged() -> None:
    stream = io.StringIO()
    logger = logging.Logger("buffered")
    logger.addHandler(MemoryHandler(10, target=logging.StreamHandler(stream)))
    for _ in range(2):  # the second time changes nothing
        set_up(logger, "json", dict)
    for one in ("first", "second"):
        Context().run(warn, logger, f"of {one}", one)
    logger.handlers[0].flush()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["message"], line["request_id"]) for line in lines] == [("of first", "first"), ("of second", "second")]


def test_a_line_about_a_traced_request_has_the_id_of_the_trace() -> None:
    stream = io.StringIO()
    logger = logging.Logger("traced")
    logger.addHandler(logging.StreamHandler(stream))
    set_up(logger, "json", dict)

    def work() -> None:
        TRACE_ID.set("4bf92f3577b34da6a3ce929d0e0e4736")
        warn(logger, "hello", "mine")

    Context().run(work)
    Context().run(warn, logger, "untraced", "other")
    traced, untraced = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (traced["request_id"], traced["trace_id"]) == ("mine", "4bf92f3577b34da6a3ce929d0e0e4736")
    assert "trace_id" not in untraced


def test_text_keeps_the_format_of_the_handlers() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("[%(request_id)s] %(message)s"))
    logger = logging.Logger("plain")
    logger.addHandler(handler)
    set_up(logger, "text", lambda: pytest.fail("only JSON says where"))
    Context().run(warn, logger, "hello", "mine")
    assert stream.getvalue() == "[mine] hello\n"
