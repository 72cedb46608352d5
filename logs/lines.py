"""How lines are written: each with the id of its request, and as JSON where the operator wants that.

Lines hold neither prompts nor images nor the query of a URL, whatever the format. Where code has a part of a request in
its hands, the text of an exception may hold that part too, so that of such exceptions only the place is written.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from logging.handlers import MemoryHandler
from typing import Any, Literal

from logs.request_id import REQUEST_ID
from logs.trace_id import TRACE_ID

LogFormat = Literal["text", "json"]

HOLDS_REQUESTS = ("router", "vlm.decoding", "vlm.engine.prepare", "vlm.engine.core.answers")
"""Loggers of code whose exceptions may quote a request or its answer."""

FIELDS = ("method", "path", "status", "duration_ms", "model", "attempt", "reason", "error")
"""What a line may say beside its message, for programs."""

LED_TO = "\n\nwhich led to\n\n"

OF_SERVE = "serve_request_id"
"""Ray Serve has an id of its own for each call from process to process, which its own lines carry."""


def set_up(logger: logging.Logger, log_format: LogFormat, where: Callable[[], Mapping[str, str]]) -> None:
    """Have all handlers of ``logger`` write lines so.

    Args:
        logger: The one whose handlers write what this process logs.
        log_format: ``text`` keeps the format that they have.
        where: What every line of this process says of it, in JSON; asked only for that.
    """
    for handler in logger.handlers:
        handler.addFilter(STAMP)  # once, however often this is called
        if log_format == "json":
            writer = handler.target if isinstance(handler, MemoryHandler) and handler.target else handler
            writer.setFormatter(JsonFormatter(where()))


class Stamp(logging.Filter):
    """Lets every line pass, with the id of its request: a buffer may write it when another request is worked on."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Put ``request_id`` into the record, and take the text of an exception out that may quote a request."""
        own, known = REQUEST_ID.get(), getattr(record, "request_id", None)
        if own and known != own:
            if known is not None:
                setattr(record, OF_SERVE, known)
            record.request_id = own
        if trace := TRACE_ID.get():
            record.trace_id = trace
        if record.exc_info and not record.exc_text and _is_of(record.name, HOLDS_REQUESTS):
            record.exc_text = place_of(record.exc_info[1])
        return True


STAMP = Stamp()


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, where: Mapping[str, str]) -> None:
        super().__init__()
        self._where = dict(where)

    def format(self, record: logging.LogRecord) -> str:
        """The line: its time in UTC first; keys that do not apply are absent."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            **self._where,
            "logger": record.name,
            "message": record.getMessage(),
        }
        said = record.__dict__
        line |= {key: said[key] for key in ("request_id", "trace_id", OF_SERVE, *FIELDS) if said.get(key) is not None}
        if record.exc_info or record.exc_text:
            record.exc_text = record.exc_text or self.formatException(record.exc_info)  # type: ignore[arg-type]
            line["exception"] = record.exc_text
        return json.dumps(line, ensure_ascii=False, default=str)


def place_of(error: BaseException | None) -> str:
    """Where an exception comes from and of which class it is, without its text; what led to it stands before it."""
    return LED_TO.join(traceback_of + name for traceback_of, name in reversed([*_chain(error)]))


def _chain(error: BaseException | None) -> Iterator[tuple[str, str]]:
    """(frames, class) of the exception, of its cause, of the cause of that, and so on."""
    told: set[int] = set()
    while error is not None and id(error) not in told:
        told.add(id(error))
        yield "".join(traceback.format_tb(error.__traceback__)), type(error).__name__
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_of(name: str, parents: tuple[str, ...]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)
