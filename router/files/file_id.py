"""The id of a file, which says all that limits and lists need to know of it.

So a list of ids is an index: what a caller holds, what has expired and which files have the same content is known
without reading anything else, and there is no second record that could disagree.
"""

from __future__ import annotations

import base64
import re
import secrets
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

Purpose = Literal["vision", "user_data"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

MAX_KNOWN = 16_384
"""Ids that are not parsed again with every list; more than a store usually has, and a few megabytes."""

DIGEST_BYTES = 11
_SALT_BYTES = 4
_LAYOUT = struct.Struct(f">6sIIB{DIGEST_BYTES}s{_SALT_BYTES}s")  # 30 bytes are 48 characters, without padding
_PREFIX = "file-"
_TEXT = re.compile(_PREFIX + "[0-9a-v]{48}")


@dataclass(frozen=True, slots=True)
class FileId:
    """What an id says. Its text sorts by the time of the upload, and is safe as a name of a file or an object.

    Attributes:
        created_ms: Time of the upload, in milliseconds since 1970.
        expires_s: When the file ceases to exist, in seconds since 1970.
        size: Number of bytes.
        purpose: What it was uploaded for.
        digest: Of the content, with the store's key: equal for equal files of one owner, and only for these.
        salt: Tells apart equal files that were uploaded in the same millisecond.
    """

    created_ms: int
    expires_s: int
    size: int
    purpose: Purpose
    digest: bytes
    salt: bytes

    @classmethod
    def new(cls, created_s: float, expires_s: int, size: int, purpose: Purpose, digest: bytes) -> FileId:
        """The id of a file that is uploaded at ``created_s``."""
        return cls(int(created_s * 1000), expires_s, size, purpose, digest, secrets.token_bytes(_SALT_BYTES))

    @classmethod
    def parse(cls, text: str) -> FileId | None:
        """The id that is spelled ``text``; None where there cannot be a file of that id."""
        return _parse(text) if _TEXT.fullmatch(text) else None

    def __str__(self) -> str:
        packed = _LAYOUT.pack(
            self.created_ms.to_bytes(6),
            self.expires_s,
            self.size,
            PURPOSES.index(self.purpose) + 1,
            self.digest,
            self.salt,
        )
        return _PREFIX + base64.b32hexencode(packed).decode().lower()

    @property
    def created_s(self) -> int:
        """Time of the upload, in whole seconds."""
        return self.created_ms // 1000


@lru_cache(MAX_KNOWN)  # of texts that are ids by their form, and so are short
def _parse(text: str) -> FileId | None:
    packed = base64.b32hexdecode(text.removeprefix(_PREFIX), casefold=True)
    created, expires_s, size, purpose, digest, salt = _LAYOUT.unpack(packed)
    if not 0 < purpose <= len(PURPOSES):
        return None
    return FileId(int.from_bytes(created), expires_s, size, PURPOSES[purpose - 1], digest, salt)
