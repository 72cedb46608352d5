"""Bodies of chat that do not fit its schema: the error for one, and what it costs to find it."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from router.asgi.validation import validated
from router.chat.schema import ChatBody
from vlm.errors import InvalidRequest


def refused(request: dict[str, Any]) -> InvalidRequest:
    """The error for a request."""
    with pytest.raises(InvalidRequest) as caught:
        validated(ChatBody, request)
    return caught.value


def assert_is_one_error(request: dict[str, Any]) -> None:
    """Pydantic would otherwise keep an error, and a copy of the item, for each bad item of a list."""
    tracemalloc.start()
    try:
        refused(request)
        assert tracemalloc.get_traced_memory()[1] < 1024**2
    finally:
        tracemalloc.stop()
