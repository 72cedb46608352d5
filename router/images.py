"""The bytes of an image that a request references, scanned but not decoded.

Reads data URLs; ``router.fetch`` downloads images, which are checked here too. No path is opened. No message repeats
what the client sent.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

from router.asgi.format import ImageReference, Requester
from router.asgi.threads import in_thread_if_large
from vlm.errors import InvalidImage
from vlm.image.limits import ImageLimits
from vlm.image.scan import scan, upright_size

_DATA_URL = re.compile(r"data:(?P<media>[a-z]+/[a-z0-9.+-]+)?(?:;[a-z0-9=.+-]+)*?;base64,", re.IGNORECASE)


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
    head = _DATA_URL.match(url[:256])
    if head is None:
        raise InvalidImage(
            "The image must be a data URL: data:image/png;base64,... with the image's bytes in base64. "
            "File paths and plain base64 are not supported.",
            param,
            "invalid_image_url",
        )
    if not (head["media"] or "").lower().startswith("image/"):
        raise InvalidImage(
            "The data URL's media type must begin with image/, as in data:image/png;base64,...",
            param,
            "unsupported_image_media_type",
        )
    data = _decoded(url, head.end(), limits, param)
    check_image(data, limits, param)
    return data


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
    if (len(url) - start) // 4 * 3 > limits.max_bytes + 2:  # before its bytes are copied
        raise InvalidImage(
            f"The image has more than {limits.max_bytes} bytes; send a smaller one.",
            param=param,
            code="image_file_too_large",
        )
    try:
        return base64.b64decode(url[start:].encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise InvalidImage(
            "The image's data is not valid base64: use the standard alphabet, with padding and without line breaks.",
            param,
            "invalid_base64_image",
        ) from error


def check_image(data: bytes, limits: ImageLimits, param: str) -> None:
    """Check the bytes of an image, wherever they come from.

    Raises:
        InvalidImage: As for :func:`read_image`.
    """
    try:
        scan(data, limits)
    except InvalidImage as error:
        raise InvalidImage(error.message, param, error.code) from error
