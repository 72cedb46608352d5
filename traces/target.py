"""The one setting of traces: whether there are any, and where they are sent."""

from __future__ import annotations

import re
from importlib.util import find_spec

OFF, CONSOLE, STANDARD = "off", "console", "otlp"

MAX_URL_CHARS = 2048
SIGNAL = "/v1/traces"
"""The path below the address of a collector, as OTLP has it."""

INSTALL = "pip install 'gigarouter[traces]' on every node of the cluster"

_URL = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/[A-Za-z0-9._~/-]*)?")
_EXPORTER = "opentelemetry.exporter.otlp.proto.http"


def checked_target(value: str) -> str:
    """The setting as it is.

    Raises:
        ValueError: It is none; the message goes on after the setting's name.
    """
    if value in (OFF, CONSOLE, STANDARD) or (len(value) <= MAX_URL_CHARS and _URL.fullmatch(value)):
        return value
    raise ValueError(
        "must be off, console, otlp, or the address of an OTLP/HTTP collector such as http://collector:4318, without "
        "user name and query. Keys for the collector belong in the variable OTEL_EXPORTER_OTLP_HEADERS"
    )


def endpoint_of(target: str) -> str | None:
    """The URL that spans are posted to; None where the standard variables say it."""
    if target == STANDARD:
        return None
    address = target.rstrip("/")
    return address if address.endswith(SIGNAL) else address + SIGNAL


def is_installed(target: str) -> bool:
    """Whether this environment has what sends spans there."""
    try:
        return target == OFF or find_spec("opentelemetry.sdk" if target == CONSOLE else _EXPORTER) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False


def what_is_missing(target: str) -> str:
    """The message for an environment that lacks it."""
    return f"traces is {target}, but the packages that send traces are not installed: {INSTALL}, or set traces to off."
