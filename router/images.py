"""The bytes of an image that a request points at, checked as far as its header.

Takes data URLs alone: nothing is fetched, no path is opened. Knows limits and base64, not pixels and not HTTP.
A message never repeats what the client sent.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

from router.asgi.format import ImageReference
from router.asgi.threads import in_thread_if_large
from vlm.errors import InvalidImage
from vlm.image.decode import ImageLimits, inspect, upright_size

_DATA_URL = re.compile(r"data:(?P<media>[a-z]+/[a-z0-9.+-]+)?(?:;[a-z0-9=.+-]+)*?;base64,", re.IGNORECASE)


class DataUrlLoader:
    """Images that stand in the request itself; see :class:`~router.asgi.format.ImageLoader`."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits

    async def load(self, references: Sequence[ImageReference]) -> Sequence[bytes]:
        """See :class:`~router.asgi.format.ImageLoader`."""
        return [
            await in_thread_if_large(len(reference.url), read_image, reference.url, self._limits, reference.param)
            for reference in references
        ]


def read_image(url: str, limits: ImageLimits, param: str) -> bytes:
    """The encoded image within a data URL.

    Args:
        url: ``data:image/...;base64,...``.
        limits: What an image may be.
        param: Path of the URL's field, for errors.

    Raises:
        InvalidImage: No data URL of an image, broken base64, no image of an accepted format, or over a limit.
    """
    head = _DATA_URL.match(url[:256])
    if head is None:
        raise InvalidImage(
            "The image must be a data URL: data:image/png;base64,... with the image's bytes in base64. "
            "Web addresses and file paths are not read.",
            param,
            "invalid_image_url",
        )
    if not (head["media"] or "").lower().startswith("image/"):
        raise InvalidImage("The data URL's media type must be image/...", param, "unsupported_image_media_type")
    data = _decoded(url, head.end(), limits, param)
    _inspected(data, limits, param)
    return data


def upright_size_of(data: bytes, limits: ImageLimits, param: str) -> tuple[int, int]:
    """(width, height) of an image from :func:`read_image` once its EXIF orientation is applied; no pixel is decoded.

    Raises:
        InvalidImage: Its metadata is broken.
    """
    try:
        return upright_size(data, limits)
    except InvalidImage as error:
        raise InvalidImage(error.message, param, error.code) from error


def _decoded(url: str, start: int, limits: ImageLimits, param: str) -> bytes:
    if (len(url) - start) // 4 * 3 > limits.max_bytes + 2:  # refused before its bytes are copied
        raise InvalidImage(
            f"The image has more than {limits.max_bytes} bytes.", param=param, code="image_file_too_large"
        )
    try:
        return base64.b64decode(url[start:].encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise InvalidImage("The image's data is not valid base64.", param, "invalid_base64_image") from error


def _inspected(data: bytes, limits: ImageLimits, param: str) -> None:
    try:
        inspect(data, limits)
    except InvalidImage as error:
        raise InvalidImage(error.message, param, error.code) from error
