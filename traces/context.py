"""Which trace and which of its spans is meant, as the W3C's Trace Context has it in the header ``traceparent``."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

MAX_CHARS = 256
"""Of the header. Version 00 has 55; later ones may append fields, which are not read."""

_HEADER = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class Context:
    """One span of one trace.

    Attributes:
        trace_id, span_id: 32 and 16 hexadecimal digits in lower case.
        sampled: Whether it is recorded.
    """

    trace_id: str
    span_id: str
    sampled: bool

    @classmethod
    def new(cls, trace_id: str | None = None, *, sampled: bool) -> Self:
        """A new span, of a new trace unless that has an id."""
        return cls(trace_id or secrets.token_hex(16), secrets.token_hex(8), sampled)

    @property
    def header(self) -> str:
        """The ``traceparent``."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


def context_in(values: Sequence[str]) -> Context | None:
    """What the values of the header ``traceparent`` say; None where it is absent, malformed, or there several times."""
    if len(values) != 1 or len(values[0]) > MAX_CHARS or not (found := _HEADER.fullmatch(values[0])):
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "00" and rest:
        return None
    return Context(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))
