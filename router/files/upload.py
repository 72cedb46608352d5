"""The body of an upload: a form with the file and a few words about it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from router.asgi.validation import MAX_PATH
from router.config import RouterConfig
from router.files.file_id import PURPOSES, Purpose
from vlm.errors import InvalidRequest

MAX_FORM_PARTS = 16
"""A form has four fields, and clients may send some that are not known here."""
MAX_FIELD_BYTES = 1024
"""Of a field beside the file, which is a word or a number."""
MAX_PART_HEADERS = 8
MAX_PART_HEADER_BYTES = 4096
MAX_FILENAME_CHARS = 255

FILE, PURPOSE = "file", "purpose"
ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"

_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))\s*(?:;|$)', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Upload:
    """What a client uploads.

    Attributes:
        content: The bytes, unchecked.
        filename: The client's name for it, without a path; nothing is ever opened by it.
        purpose: What it is for.
        ttl_s: For how long it is to be kept, in seconds; None where the client does not say.
        ignored: Fields of the form that are not known.
    """

    content: bytes
    filename: str
    purpose: Purpose
    ttl_s: int | None = None
    ignored: tuple[str, ...] = ()


def read_upload(content_type: str, body: bytes, config: RouterConfig) -> Upload:
    """The upload in a body of ``multipart/form-data``. CPU work only.

    Raises:
        InvalidRequest: It is not such a form, or a field of it is missing or wrong.
    """
    parts: dict[str, _Part] = {}
    for part in _parts(content_type, body):
        if part.name in parts:
            raise InvalidRequest(f"{part.name}: is in the form twice.", part.name, "invalid_value")
        parts[part.name] = part
    file = parts.pop(FILE, None)
    words = {name: _word(part) for name, part in parts.items() if name in (PURPOSE, ANCHOR, SECONDS)}
    purpose, ttl_s = _purpose(words.get(PURPOSE)), _ttl_s(words, config)
    if file is None:
        raise InvalidRequest("file: is required.", FILE, "missing_required_parameter")
    unknown = tuple(name for name in parts if name not in words)
    return Upload(file.data, clean_filename(file.filename), purpose, ttl_s, unknown)


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    filename: str
    data: bytes


def _parts(content_type: str, body: bytes) -> Iterator[_Part]:
    from multipart import MultipartError, MultipartSegment, PushMultipartParser

    parser = PushMultipartParser(
        _boundary(content_type),
        max_header_size=MAX_PART_HEADER_BYTES,
        max_header_count=MAX_PART_HEADERS,
        max_segment_count=MAX_FORM_PARTS,
        strict=True,
    )
    try:
        with parser:
            data = bytearray()
            for event in parser.parse(body):
                if isinstance(event, MultipartSegment):
                    segment, data = event, bytearray()
                elif event is not None:
                    data += event
                else:
                    yield _Part((segment.name or "")[:MAX_PATH], segment.filename or "", bytes(data))
    except MultipartError as error:
        raise InvalidRequest(
            "The body is not a valid form (multipart/form-data), or it has more than "
            f"{MAX_FORM_PARTS} parts or headers of parts that are too long.",
            code="invalid_multipart",
        ) from error


def _boundary(content_type: str) -> str:
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or found is None or not content_type.isascii():
        raise InvalidRequest(
            "A file is uploaded as a form: the Content-Type must be multipart/form-data with a boundary of up to 70 "
            "characters. OpenAI's clients and curl -F send it.",
            code="invalid_multipart",
        )
    return found[1] or found[2]


def _word(part: _Part) -> str:
    if len(part.data) > MAX_FIELD_BYTES:
        raise InvalidRequest(f"{part.name}: has more than {MAX_FIELD_BYTES} bytes.", part.name, "invalid_value")
    return part.data.decode("utf-8", errors="replace")


def _purpose(word: str | None) -> Purpose:
    if word is None:
        raise InvalidRequest("purpose: is required: vision or user_data.", PURPOSE, "missing_required_parameter")
    if word not in PURPOSES:
        raise InvalidRequest(
            "purpose: must be vision or user_data. This server keeps images to be asked about, and nothing for "
            "assistants, batches, fine-tuning or evals.",
            PURPOSE,
            "invalid_value",
        )
    return word


def _ttl_s(words: dict[str, str], config: RouterConfig) -> int | None:
    anchor, seconds = words.get(ANCHOR), words.get(SECONDS)
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise InvalidRequest("expires_after.anchor: must be created_at.", "expires_after.anchor", "invalid_value")
    if seconds is None or not re.fullmatch("[1-9][0-9]{0,9}", seconds) or int(seconds) > config.max_file_ttl_s:
        raise InvalidRequest(
            f"expires_after.seconds: must be a whole number from 1 to {config.max_file_ttl_s}.",
            "expires_after.seconds",
            "invalid_value",
        )
    return int(seconds)


def clean_filename(filename: str) -> str:
    """A client's name for a file as one that is safe to show: without a path and without control characters."""
    name = re.split(r"[/\\]", filename)[-1]
    shown = "".join(char for char in name if unicodedata.category(char)[0] != "C").strip()
    return shown[:MAX_FILENAME_CHARS] or "upload"
