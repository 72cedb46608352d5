"""How many downloads there are at once: in this process, of one caller, and from one host."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from vlm.errors import Overloaded

WAIT_S = 10.0
"""Seconds that a download waits for its turn, after which the request is refused and may be sent again."""

Key = tuple[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    keys: tuple[Key, ...]
    turn: asyncio.Future[None]


class Turns:
    """Gives out turns to download.

    A download takes one of each count at once, or waits; so none holds what another needs while it waits itself. Those
    that wait are served in the order in which they came, but one whose host or caller is busy does not hold up the
    rest: after each return, every waiting download for which there is room has its turn.
    """

    def __init__(self, total: int, per_host: int, per_caller: int) -> None:
        self._limits = {"all": total, "host": per_host, "caller": per_caller}
        self._held: Counter[Key] = Counter()
        self._waiting: list[_Waiting] = []

    @asynccontextmanager
    async def turn(self, caller: str, host: str) -> AsyncGenerator[None, None]:
        """A turn for the length of the block.

        Raises:
            Overloaded: There was none in time.
        """
        keys = (("all", ""), ("host", host), ("caller", caller))
        await self._take(keys)
        try:
            yield
        finally:
            self._give(keys)

    @property
    def running(self) -> int:
        """How many turns are given out."""
        return self._held["all", ""]

    async def _take(self, keys: tuple[Key, ...]) -> None:
        if self._fits(keys):
            self._held.update(keys)
            return
        waiting = _Waiting(keys, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout(WAIT_S):
                await waiting.turn
        except BaseException as error:
            self._leave(waiting)
            if isinstance(error, TimeoutError):
                raise Overloaded("Too many images are being downloaded at the moment; try again.") from error
            raise

    def _leave(self, waiting: _Waiting) -> None:
        """Stop waiting; a turn that was given in the same moment goes back."""
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        else:
            self._give(waiting.keys)

    def _give(self, keys: tuple[Key, ...]) -> None:
        self._held.subtract(keys)
        for key in keys:
            if not self._held[key]:
                del self._held[key]
        for waiting in list(self._waiting):
            if not waiting.turn.done() and self._fits(waiting.keys):  # done: cancelled, and about to leave
                self._waiting.remove(waiting)
                self._held.update(waiting.keys)
                waiting.turn.set_result(None)

    def _fits(self, keys: tuple[Key, ...]) -> bool:
        return all(self._held[key] < self._limits[key[0]] for key in keys)
