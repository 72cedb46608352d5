"""Identifiers: random, so that two processes never make the same one, and nobody guesses one."""

from __future__ import annotations

import base64
import secrets
from typing import Literal

_BYTES = 15
"""120 bits, which are 24 characters of base32."""


def new_id(kind: Literal["org", "acct", "key"]) -> str:
    """An id as ``acct_`` and 24 small letters and digits."""
    return f"{kind}_{random_name()}"


def random_name() -> str:
    """24 small letters and digits."""
    return base64.b32encode(secrets.token_bytes(_BYTES)).decode().lower()
