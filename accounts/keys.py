"""The secrets of keys: how they are made, told apart and hashed. They are kept nowhere, only their keyed hashes.

A secret has 256 random bits, so that its hash needs no salt and need not be slow: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

from accounts.types import Key

PREFIX = "gr-"
CHARS_OF_HINT = 7

_BYTES = 32
_FORM = re.compile(PREFIX + r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key whose secret is shown now, and never again.

    Attributes:
        key: The key.
        secret: What requests bring. It is not part of the object's ``repr``.
    """

    key: Key
    secret: str = field(repr=False)


def new_secret() -> str:
    """A secret as ``gr-`` and 43 letters, digits, ``-`` and ``_``."""
    return PREFIX + secrets.token_urlsafe(_BYTES)


def looks_like_key(text: str) -> bool:
    """Whether this could be the secret of a key. What could not is refused without asking anybody."""
    return _FORM.fullmatch(text) is not None


def hint_of(secret: str) -> str:
    """The first characters of a secret, which are shown so that people can tell keys apart."""
    return secret[:CHARS_OF_HINT]


def digest(secret: str, pepper: bytes) -> bytes:
    """The keyed hash (HMAC-SHA256, 32 bytes) by which a secret is known.

    Args:
        secret: Any text, such as what a request brings.
        pepper: The same in all processes that share a database.
    """
    return hmac.digest(pepper, secret.encode("utf-8", errors="replace"), hashlib.sha256)
