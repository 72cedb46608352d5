"""The images that the parts of a message refer to: by URL, by their data, or by the id of an uploaded file."""

from __future__ import annotations

from router.asgi.format import ImageReference
from router.chat.schema import FilePart, ImagePart, Message
from vlm.errors import InvalidRequest


def image_references(message: Message, path: str) -> tuple[ImageReference, ...]:
    """The images of a message, in order.

    Args:
        message: With parts of any kind.
        path: Where the message is in the body, for errors.

    Raises:
        InvalidRequest: A part says nothing about where its image is, or says it twice.
    """
    return tuple(
        _reference(part, f"{path}.content[{index}]")
        for index, part in enumerate(message.content)
        if isinstance(part, ImagePart | FilePart)
    )


def _reference(part: ImagePart | FilePart, path: str) -> ImageReference:
    if isinstance(part, ImagePart):
        return _one_of("url", part.image_url.url, part.image_url.file_id, f"{path}.image_url")
    return _one_of("file_data", part.file.file_data, part.file.file_id, f"{path}.file")


def _one_of(name: str, url: str | None, file_id: str | None, path: str) -> ImageReference:
    """The reference by ``url``, whose field has this ``name``, or by ``file_id``."""
    if url is not None and file_id is not None:
        raise InvalidRequest(
            f"{path}: {name} and file_id cannot be sent together; send one of them.", path, "invalid_value"
        )
    if file_id is not None:
        return ImageReference(file_id, f"{path}.file_id", is_file=True)
    if url is None:
        raise InvalidRequest(
            f"{path}.{name}: is required, or file_id in its place.", f"{path}.{name}", "missing_required_parameter"
        )
    return ImageReference(url, f"{path}.{name}")
