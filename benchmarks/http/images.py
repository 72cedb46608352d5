"""JPEGs that no cache has seen, at next to no cost while the clock runs.

Each is one of a number of made-up images with a comment of its own, so that its file is new and its pixels are known:
what is said about it can be compared with what was said about the image without a comment. (The system under test
recognises an image by the hash of its file, and so would any cache that does not decode first.)
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

from vlm.image.sample import sample_image

START_OF_IMAGE = b"\xff\xd8"
COMMENT = b"\xff\xfe"
COMMENT_BYTES = 12
"""With the markers and the length, 18 bytes: the base64 of what follows is then the same for every comment."""


@dataclass(frozen=True, slots=True)
class NewImage:
    """A JPEG as base64, in two parts, of which only the first is its own.

    Attributes:
        number: Which of the made-up images it shows.
    """

    number: int
    head: bytes
    tail: bytes

    @property
    def base64(self) -> bytes:
        return self.head + self.tail


class Images:
    """As many new JPEGs of one size as anybody wants."""

    def __init__(self, count: int = 64, size: tuple[int, int] = (640, 480)) -> None:
        """``count``: how many different images there are."""
        self.files = [sample_image(number, *size) for number in range(count)]
        self._tails = [base64.b64encode(file[len(START_OF_IMAGE) :]) for file in self.files]
        self._run = secrets.token_bytes(4)  # a system that still runs has not seen this run's comments either
        self._next = self._new()

    def __iter__(self) -> Iterator[NewImage]:
        """Goes on where the last iteration stopped: no image ever comes twice."""
        return self._next

    def _new(self) -> Iterator[NewImage]:
        for count, (number, tail) in enumerate(cycle(enumerate(self._tails))):
            yield NewImage(number, base64.b64encode(commented(self._run + count.to_bytes(8))), tail)


def commented(comment: bytes) -> bytes:
    """The beginning of a JPEG with a comment of :data:`COMMENT_BYTES`."""
    assert len(comment) == COMMENT_BYTES
    return START_OF_IMAGE + COMMENT + (len(comment) + 2).to_bytes(2) + comment
