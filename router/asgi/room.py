"""What one process can hold: so many requests, and so many bytes of their bodies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vlm.errors import Overloaded

UNCOUNTED_BYTES = 64 * 1024
"""Of each body, so that questions in words are answered while large images have taken all bytes."""

TOO_MANY = "The server has as many requests as it can hold; try again in a moment."

SHARE_KEY = "gigarouter.share"
"""Where the front leaves the :class:`Share` of a request in its scope, for what the request comes to hold later."""


class RequestCount:
    """The requests that are somewhere at the same time, up to a number."""

    def __init__(self, number: int) -> None:
        self._free = number

    def check(self) -> None:
        """Refuse one more request if that many are there.

        Raises:
            Overloaded: They are.
        """
        if not self._free:
            raise Overloaded(TOO_MANY)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count one more until the end of the block.

        Raises:
            Overloaded: As many are there.
        """
        self.check()
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class BodyBytes:
    """The bytes that the bodies of all requests may take together."""

    def __init__(self, number: int) -> None:
        self._free = number

    @contextmanager
    def share(self) -> Iterator[Share]:
        """The share of one request, which is given back at the end of the block."""
        share = Share(self)
        try:
            yield share
        finally:
            self._free += share.counted

    def check(self, number: int) -> None:
        """Refuse a body of whose bytes ``number`` would be counted.

        Raises:
            Overloaded: There are not as many left.
        """
        if number > self._free:
            raise Overloaded("The server holds as many large requests as it can; try again in a moment.")

    def take(self, number: int) -> None:
        """Count ``number`` more bytes.

        Raises:
            Overloaded: There are not as many left.
        """
        self.check(number)
        self._free -= number


class Share:
    """What one request has taken so far. It grows with what arrives, not with what is announced."""

    def __init__(self, all_bytes: BodyBytes) -> None:
        self._all = all_bytes
        self.counted = 0

    def expect(self, size: int) -> None:
        """Refuse a body that is to have ``size`` bytes, if there is no room for it now.

        Raises:
            Overloaded: There is none.
        """
        self._all.check(max(size - UNCOUNTED_BYTES, 0))

    def grow(self, size: int) -> None:
        """The body has ``size`` bytes now.

        Raises:
            Overloaded: There is no room for them.
        """
        more = max(size - UNCOUNTED_BYTES, 0) - self.counted
        if more > 0:
            self._all.take(more)
            self.counted += more

    def hold(self, size: int) -> None:
        """The request holds ``size`` bytes more, beside its body.

        Raises:
            Overloaded: There is no room for them.
        """
        self._all.take(size)
        self.counted += size
