"""The keys as one router process knows them: found in memory, and as new as the database within a second.

::

    find(digest)    remembered, and no key was changed since: the key
                    else the database is asked, once for all who wait for the same digest
    every POLL_S    the database's count of changes: another number than before ends what is remembered
    every USED_S    when keys were last used is written down

What is remembered holds only as long as the count was read within ``patience_s``: a router that cannot reach the
database stops letting requests in, rather than letting revoked keys in for ever. Secrets themselves are not remembered,
only their keyed hashes. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from accounts.errors import AccountsUnavailable
from accounts.types import Key
from logs.lines import place_of
from router.asgi.deadline import give_up

logger = logging.getLogger(__name__)

POLL_S = 0.3
USED_S = 60.0
RETRY_S = 0.2
"""Between two attempts while the database does not answer."""
MAX_REMEMBERED = 20_000
"""Digests that are remembered of good keys, and as many of what is none; what was asked for longest ago goes first."""
UNKNOWN_S = 30.0
"""How long a digest is remembered that is no key's."""
SUSPECT_QUESTIONS_PER_S = 20
"""To the database, about digests from addresses that have sent too many wrong keys."""
QUESTIONS = 2
"""To the database at a time, beside the count of changes, which does not wait behind them. As many again are about
keys that were good before: after a change, these do not wait behind the wrong ones of strangers, of which there may be
any number."""


class Keys(Protocol):
    """Where keys are kept; each call may wait for a database, and raise ``AccountsUnavailable``."""

    def find(self, digest: bytes) -> Key | None:
        """The key with this hash of its secret, if its account is open."""
        ...

    def version(self) -> int:
        """Another number after every change of a key or an account."""
        ...

    def used(self, key_ids: Collection[str], at: int) -> None:
        """Write down that these keys were used."""
        ...


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database said of a digest.

    Attributes:
        key: None where there is no good key.
        version: The count of changes before it was asked.
        until: When it is to be asked again, on the monotonic clock.
    """

    key: Key | None
    version: int
    until: float


class _Trickle:
    """Lets so many through in a second, and as many at once after a pause."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._left = float(per_s)
        self._at = time.monotonic()

    def take(self) -> bool:
        """Whether one more may go through."""
        now = time.monotonic()
        self._left = min(self._per_s, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Keyring:
    """Finds keys by the hashes of their secrets. Used in one event loop, which it never blocks."""

    def __init__(
        self,
        keys: Keys,
        digest: Callable[[str], bytes],
        *,
        patience_s: float,
        poll_s: float = POLL_S,
        used_s: float = USED_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Of ``keys``.

        Args:
            digest: The keyed hash by which secrets are known.
            patience_s: How long to go on while the database does not answer, and how long to wait for it.
            poll_s, used_s: How often changes are looked for, and last uses written down.
            clock: The time in seconds since 1970.
        """
        self.digest = digest
        self._keys = keys
        self._patience_s = patience_s
        self._poll_s = poll_s
        self._used_s = used_s
        self._clock = clock
        self._good: OrderedDict[bytes, _Known] = OrderedDict()
        self._unknown: OrderedDict[bytes, _Known] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Key | None]] = {}
        self._version = -1
        self._read_at = float("-inf")
        self._used: set[str] = set()
        self._suspects = _Trickle(SUSPECT_QUESTIONS_PER_S)
        self._questions = ThreadPoolExecutor(QUESTIONS, thread_name_prefix="keyring")
        self._questions_again = ThreadPoolExecutor(QUESTIONS, thread_name_prefix="keyring-again")
        self._counting = ThreadPoolExecutor(1, thread_name_prefix="keyring-changes")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look for changes until the end of the block; what was used last is then written down."""
        tasks = [
            asyncio.create_task(self._keep(self._poll_s, self.refresh)),
            asyncio.create_task(self._keep(self._used_s, self._write_used)),
        ]
        try:
            yield
        finally:
            for task in [*tasks, *self._asking.values()]:
                await give_up(task)
            with suppress(AccountsUnavailable):
                await self._write_used()
            for threads in (self._questions, self._questions_again, self._counting):
                # What they wait for is about to be closed.
                await asyncio.to_thread(threads.shutdown, cancel_futures=True)

    def knows(self, digest: bytes) -> bool:
        """Whether it was a good key's when it was last asked for, however long ago."""
        known = self._good.get(digest)
        return known is not None and self._is_good(known.key)

    def remembered(self, digest: bytes) -> Key | None:
        """The key with this hash of its secret, if that is known at this moment without asking the database."""
        found = self._remembered(digest)
        return found.key if found is not None and self._is_good(found.key) else None

    async def find(self, digest: bytes) -> Key | None:
        """The key with this hash of its secret; None where there is none that is good.

        Raises:
            AccountsUnavailable: The database does not answer.
        """
        found = self._remembered(digest)
        key = found.key if found is not None else await self._ask_once(digest)
        if key is None or not self._is_good(key):
            return None
        self._used.add(key.id)
        return key

    async def find_suspect(self, digest: bytes) -> Key | None:
        """The same for an address that has sent too many wrong keys: what is not known is asked for only so often.

        Behind a proxy, all clients have one address. A forgotten program with an old key must not keep the others out,
        and whoever tries one key after the other must not keep the database busy.
        """
        if self._remembered(digest) is None and not self._suspects.take():
            return None
        return await self.find(digest)

    async def refresh(self) -> None:
        """Look for changes now, as after one that was made here.

        Raises:
            AccountsUnavailable: The database does not answer.
        """
        asked_at = time.monotonic()
        version = await asyncio.get_running_loop().run_in_executor(self._counting, self._keys.version)
        if asked_at > self._read_at:  # else a later question has been answered already
            self._version, self._read_at = version, asked_at

    def _is_good(self, key: Key | None) -> bool:
        return key is not None and key.is_good(int(self._clock() * 1000))

    def _is_current(self) -> bool:
        """Whether the count of changes was read so lately that what is remembered may be relied on."""
        return time.monotonic() - self._read_at <= self._patience_s

    def _remembered(self, digest: bytes) -> _Known | None:
        """What is known and may be relied on."""
        for known in (self._good, self._unknown) if self._is_current() else ():
            found = known.get(digest)
            if found is not None and found.version == self._version and time.monotonic() < found.until:
                known.move_to_end(digest)
                return found
        return None

    async def _ask_once(self, digest: bytes) -> Key | None:
        """The same answer for all who ask while it is on its way; one who leaves does not end it for the others."""
        task = self._asking.get(digest)
        if task is None:
            task = self._asking[digest] = asyncio.create_task(self._ask_patiently(digest))
            task.add_done_callback(partial(self._asked, digest))
        return await asyncio.shield(task)

    def _asked(self, digest: bytes, task: asyncio.Task[Key | None]) -> None:
        self._asking.pop(digest, None)
        if not task.cancelled():
            task.exception()  # whoever waits gets it; where all have left, asyncio would complain

    async def _ask_patiently(self, digest: bytes) -> Key | None:
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    return await self._ask(digest)
            except (AccountsUnavailable, TimeoutError):
                if time.monotonic() + RETRY_S > deadline:
                    raise AccountsUnavailable("API keys cannot be checked at the moment; try again.") from None
            await asyncio.sleep(RETRY_S)

    async def _ask(self, digest: bytes) -> Key | None:
        """The count is read before the key, so that a change in between is noticed when it is read again."""
        if not self._is_current():
            await self.refresh()
        version = self._version
        threads = self._questions_again if digest in self._good else self._questions
        key = await asyncio.get_running_loop().run_in_executor(threads, self._keys.find, digest)
        self._remember(digest, key if self._is_good(key) else None, version)
        return key

    def _remember(self, digest: bytes, key: Key | None, version: int) -> None:
        kept, other = (self._unknown, self._good) if key is None else (self._good, self._unknown)
        other.pop(digest, None)
        kept[digest] = _Known(key, version, time.monotonic() + UNKNOWN_S if key is None else float("inf"))
        kept.move_to_end(digest)
        if len(kept) > MAX_REMEMBERED:
            kept.popitem(last=False)

    async def _write_used(self) -> None:
        used, self._used = self._used, set()
        if not used:
            return
        write = partial(self._keys.used, used, int(self._clock() * 1000))
        try:
            await asyncio.get_running_loop().run_in_executor(self._questions_again, write)
        except AccountsUnavailable:
            self._used |= used
            raise

    async def _keep(self, every_s: float, work: Callable[[], Coroutine[None, None, None]]) -> None:
        was_silent = False
        while True:
            try:
                await work()
                if was_silent:
                    logger.warning("keys: the database of accounts answers again")
                was_silent = False
            except AccountsUnavailable as error:
                if not was_silent:  # it is tried several times a second
                    logger.warning("keys: %s; it is tried again", error.__cause__ or error)
                was_silent = True
            except Exception as error:  # noqa: BLE001  # without the next count, changes would not be noticed
                logger.error("unexpected %s\n%s", type(error).__name__, place_of(error))  # noqa: TRY400
            await asyncio.sleep(every_s)
