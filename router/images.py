"""The bytes of an image that a request references, scanned but not decoded.

Reads data URLs; ``router.fetch`` downloads images, which are checked here too. No path is opened. No message repeats
what the client sent.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from pydantic import ConfigDict, TypeAdapter

from router.asgi.format import ImageReference, Requester
from router.asgi.threads import in_thread_if_large
from vlm.errors import InvalidImage
from vlm.image.limits import ImageLimits
from vlm.image.scan import scan, upright_size

_DATA_URL = re.compile(r"data:[^,]{0,512}; ?base64 ?,", re.IGNORECASE)  # the bytes decide, not the media type
_BARE = re.compile(r"\s*(?:iVBORw0K|/9j/|UklGR|R0lGOD|Qk)[A-Za-z0-9+/_-]{32}")
"""The beginnings of PNG, JPEG, WebP, GIF and BMP in base64."""
_BLANKS = b" \t\r\n\v\f"
_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")
_STRING_OF_BYTES = TypeAdapter(bytes, config=ConfigDict(val_json_bytes="base64"))
"""Reads a JSON string of base64, in half of the time that the standard library takes for base64."""
_SPELLING = 1.25
"""How much longer than plain base64 line breaks and percent signs may make an image's data."""


class DataUrlLoader:
    """Loads images that are part of the request itself, as data URLs."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits

    async def load(self, references: Sequence[ImageReference], requester: Requester) -> Sequence[bytes]:  # noqa: ARG002
        """See :class:`~router.asgi.format.ImageLoader`."""
        return [
            await in_thread_if_large(len(reference.url), read_image, reference.url, self._limits, reference.param)
            for reference in references
        ]


def read_image(url: str, limits: ImageLimits, param: str) -> bytes:
    """The encoded image within a data URL.

    Args:
        url: ``data:image/...;base64,...``.
        limits: Limits on its bytes and pixels.
        param: Path of the URL's field, for errors.

    Raises:
        InvalidImage: It is not a data URL of an image, its base64 is broken, its format is not accepted, it is damaged,
            or it is over a limit.
    """
    head = _DATA_URL.match(url[:1024])
    if head is None:
        raise not_a_url(url, param)
    data = _decoded(url, head.end(), limits, param)
    check_image(data, limits, param)
    return data


def not_a_url(url: str, param: str, *, web: bool = False) -> InvalidImage:
    """The error for a URL from which images are not loaded; ``web`` says whether they are downloaded at all."""
    if _BARE.match(url):
        message = "The image is base64 without a beginning: put data:image/png;base64, in front of it."
    else:
        also = " or an http or https URL" if web else ""
        message = (
            f"The image must be a data URL (data:image/png;base64,... with the image's bytes in base64){also}. "
            "Other URLs, file paths and plain base64 are not supported."
        )
    return InvalidImage(message, param, "invalid_image_url")


def upright_size_of(data: bytes, limits: ImageLimits, param: str) -> tuple[int, int]:
    """(width, height) in pixels of an image from :func:`read_image` after EXIF orientation; no pixel is decoded.

    Raises:
        InvalidImage: As for :func:`read_image`.
    """
    try:
        return upright_size(data, limits)
    except InvalidImage as error:
        raise InvalidImage(error.message, param, error.code) from error


def _decoded(url: str, start: int, limits: ImageLimits, param: str) -> bytes:
    if (len(url) - start) // 4 * 3 > (limits.max_bytes + 2) * _SPELLING:  # before its bytes are copied
        raise InvalidImage(
            f"The image has more than {limits.max_bytes} bytes; send a smaller one.",
            param=param,
            code="image_file_too_large",
        )
    try:
        return _from_base64(url[start:])
    except (binascii.Error, UnicodeEncodeError) as error:
        raise InvalidImage("The image's data is not valid base64.", param, "invalid_base64_image") from error


def _from_base64(data: str) -> bytes:
    """The bytes of ``data``: plain, or as some clients spell it, with blanks, without padding, or safe within a URL."""
    try:
        if "\\" not in data:  # which would have a meaning in a JSON string
            return _STRING_OF_BYTES.validate_json(f'"{data}"')
    except ValueError:
        pass
    plain = data.encode("ascii")
    try:
        return base64.b64decode(plain, validate=True)
    except binascii.Error:
        plain = unquote_to_bytes(plain).translate(_STANDARD_ALPHABET, _BLANKS).rstrip(b"=")
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)


def check_image(data: bytes, limits: ImageLimits, param: str) -> None:
    """Check the bytes of an image, wherever they come from.

    Raises:
        InvalidImage: As for :func:`read_image`.
    """
    try:
        scan(data, limits)
    except InvalidImage as error:
        raise InvalidImage(error.message, param, error.code) from error
