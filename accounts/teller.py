"""The one thread of a process that writes to the ledger: all that waits at a moment goes into one transaction.

Holds are taken at once. What is owed or given back is collected for a moment, unless a hold would be refused that it
might make room for. While the database does not answer, everything is kept and tried again, and after a commit of which
nobody knows whether it took place, too: nothing that is written twice counts twice. Knows no HTTP, and of the event
loop only how to hand it an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from sqlalchemy import Connection, func, select

from accounts import ledger, schema
from accounts.clock import now_ms
from accounts.database import Database
from accounts.errors import AccountsUnavailable, QuotaSpent
from accounts.outbox import Leftover, Outbox
from accounts.prices import PriceList
from accounts.types import HoldAsk, Settlement
from vlm.errors import VlmError

logger = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
Answer = asyncio.Future[VlmError | None]
"""Why there is no hold, or None."""

SETTLE_EVERY_S = 0.2
RETRY_S = 0.1
SWEEP_EVERY_S = 1.0
RECOVER_EVERY_S = 5.0
STOP_S = 5.0
MAX_BATCH = 500
"""Of holds, or of settlements."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Who waits for a hold."""

    ask: HoldAsk
    answer: Answer


Answered = tuple[Waiting, VlmError | None]


@dataclass(slots=True)
class Batch:
    """What one transaction does.

    Attributes:
        waiting: Who is to get a hold.
        settlements: What is owed.
        released: Holds that are given back.
        last: Whether who is refused now is refused for good.
    """

    waiting: list[Waiting] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    last: bool = False

    def __len__(self) -> int:
        return len(self.waiting) + len(self.settlements) + len(self.released)

    def parts(self) -> Iterator[Batch]:
        """The same, one by one."""
        yield from (Batch(released=[hold]) for hold in self.released)
        yield from (Batch(settlements=[settlement]) for settlement in self.settlements)
        yield from (Batch(waiting=[waiting], last=self.last) for waiting in self.waiting)


class Teller:
    """The thread, and what waits for it.

    Args:
        database: Where the ledger is.
        outbox: Is told what has been settled.
        price_list: Is kept beside the entries.
    """

    def __init__(self, database: Database, outbox: Outbox, price_list: PriceList) -> None:
        self._database = database
        self._outbox = outbox
        self._price_list = price_list
        self._prices_kept = False
        self._asks: SimpleQueue[Waiting | None] = SimpleQueue()
        self._owed: deque[Settlement] = deque()
        self._released: deque[str] = deque()
        self._work: deque[Batch] = deque()
        self._stopping = threading.Event()
        self._silent = False
        self._settle_at = self._sweep_at = self._recover_at = 0.0
        self._left_alone: set[Path] = set()
        self._thread = threading.Thread(target=self._run, name="accounts", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End when everything has been written, or the database does not answer."""
        self._stopping.set()
        self._asks.put(None)
        if self._thread.ident is not None:
            self._thread.join(STOP_S)

    @property
    def unsettled(self) -> int:
        """Number of settlements that are not in the database yet."""
        return len(self._owed) + sum(len(batch.settlements) for batch in tuple(self._work))

    def take(self, waiting: Waiting) -> None:
        """Take a hold, at once."""
        self._asks.put(waiting)

    def settle(self, settlement: Settlement) -> None:
        """Settle, within a moment."""
        self._owed.append(settlement)

    def release(self, holds: Iterable[str]) -> None:
        """Give holds back, within a moment."""
        self._released.extend(holds)

    # The thread

    def _run(self) -> None:
        while not self._is_done():
            try:
                with self._database.keep() as connection:
                    self._serve(connection)
            except AccountsUnavailable as error:
                self._is_silent(error)
            except Exception:  # the edge of the thread, without which no request is let in
                logger.exception("accounts: the thread that writes has failed, and begins anew")
            if self._stopping.wait(RETRY_S):
                return
            self._forget_who_left()

    def _forget_who_left(self) -> None:
        """While the database does not answer, those who ask for holds come and go."""
        for _ in range(self._asks.qsize()):
            asked = self._asks.get()
            if asked is not None and not asked.answer.cancelled():
                self._asks.put(asked)

    def _serve(self, connection: Connection) -> None:
        while not self._is_done():
            if not self._work:
                self._work.append(self._gather())
            self._post(connection, self._work[0])
            self._do_chores(connection)

    def _is_done(self) -> bool:
        return self._stopping.is_set() and not (self._work or self._owed or self._released)

    def _gather(self) -> Batch:
        """Who waits for a hold, or what is owed when its time has come. It waits itself when there is neither."""
        time_left = self._settle_at - time.monotonic()
        if time_left <= 0 or len(self._owed) >= MAX_BATCH or self._stopping.is_set():
            return self._gather_owed()
        batch = Batch()
        with contextlib.suppress(Empty):
            asked = self._asks.get(timeout=time_left)
            while asked is not None:
                batch.waiting.append(asked)
                asked = self._asks.get_nowait() if len(batch.waiting) < MAX_BATCH else None
        return batch

    def _gather_owed(self) -> Batch:
        self._settle_at = time.monotonic() + SETTLE_EVERY_S
        return Batch(settlements=_taken(self._owed, MAX_BATCH), released=_taken(self._released, MAX_BATCH))

    def _post(self, connection: Connection, batch: Batch) -> None:
        batch.waiting = [waiting for waiting in batch.waiting if not waiting.answer.cancelled()]
        try:
            answers = self._transact(connection, batch) if batch else []
        except AccountsUnavailable:
            # The holds may be there or not. They are given back when it answers, and taken anew for who still waits.
            batch.released = list(dict.fromkeys([*batch.released, *(waiting.ask.id for waiting in batch.waiting)]))
            raise
        except Exception as error:  # noqa: BLE001  the edge of the thread: what is wrong with one must not stop all
            self._work.popleft()
            self._divide(batch, error)
        else:
            self._work.popleft()
            self._hand_over(self._but_refused(batch, list(zip(batch.waiting, answers, strict=True))))
            if batch.settlements:
                self._outbox.settled(settlement.hold for settlement in batch.settlements)

    def _but_refused(self, batch: Batch, answers: Sequence[Answered]) -> Sequence[Answered]:
        """Those that are final: who was refused is tried once more where something is about to be settled."""
        if batch.last or not (self._owed or self._released):
            return answers
        refused = [waiting for waiting, refusal in answers if isinstance(refusal, QuotaSpent)]
        if not refused:
            return answers
        settlements, released = _taken(self._owed), _taken(self._released)
        self._work.appendleft(Batch(refused, settlements, released, last=True))
        return [answered for answered in answers if not isinstance(answered[1], QuotaSpent)]

    def _transact(self, connection: Connection, batch: Batch) -> list[VlmError | None]:
        now = now_ms()
        if not self._prices_kept:
            self._keep_prices(now)
        with self._database.begin_on(connection, flushed=bool(batch.settlements)):
            answers = ledger.post(
                connection,
                settlements=batch.settlements,
                released=batch.released,
                asks=[waiting.ask for waiting in batch.waiting],
                now=now,
            )
        self._answers_again()
        return answers

    def _keep_prices(self, now: int) -> None:
        """Before the first hold, so before anything can be owed."""
        with self._database.begin() as connection:
            ledger.keep_price_list(connection, self._price_list.digest, self._price_list.json(), now)
        self._prices_kept = True

    def _divide(self, batch: Batch, error: Exception) -> None:
        """Find what is wrong with the database's opinion of a batch: try each by itself, and set aside what fails."""
        if len(batch) > 1:
            self._work.extendleft(reversed([*batch.parts()]))
            return
        what = [settlement.hold for settlement in batch.settlements] or batch.released
        logger.error("accounts: cannot be written, and is set aside: %s", what or "a hold", exc_info=error)
        refusal = AccountsUnavailable("The accounts cannot be written now; try again.")
        self._hand_over([(waiting, refusal) for waiting in batch.waiting])

    def _hand_over(self, answers: Sequence[Answered]) -> None:
        if answers:
            try:
                answers[0][0].answer.get_loop().call_soon_threadsafe(self._answer, answers)
            except RuntimeError:  # the event loop has been closed, and nobody waits any more
                self.release(waiting.ask.id for waiting, refusal in answers if refusal is None)

    def _answer(self, answers: Sequence[Answered]) -> None:
        """On the event loop: those that have left meanwhile need no hold."""
        for waiting, refusal in answers:
            if not waiting.answer.cancelled():
                waiting.answer.set_result(refusal)
            elif refusal is None:
                self.release([waiting.ask.id])

    # From time to time

    def _do_chores(self, connection: Connection) -> None:
        moment = time.monotonic()
        if moment >= self._sweep_at:
            self._sweep_at = moment + SWEEP_EVERY_S
            with self._database.begin_on(connection):
                ledger.sweep(connection, now_ms())
            self._answers_again()
        if moment >= self._recover_at:
            self._recover_at = moment + RECOVER_EVERY_S
            for leftover in self._outbox.abandoned():
                self._recover(connection, leftover)

    def _recover(self, connection: Connection, leftover: Leftover) -> None:
        if leftover.path in self._left_alone:
            return
        if not self._knows(leftover):
            self._left_alone.add(leftover.path)
            logger.warning("accounts: %s is left alone: it is of another database", leftover.path)
        elif self._settle_left(connection, leftover.owed, leftover.unsent):
            leftover.remove()
            logger.info("accounts: settled %d requests of a process that has ended", len(leftover.owed))
        else:
            self._left_alone.add(leftover.path)

    def _settle_left(self, connection: Connection, owed: Sequence[Settlement], unsent: Sequence[str]) -> bool:
        """Whether all of it could be written; what can, is."""
        try:
            with self._database.begin_on(connection):
                ledger.post(connection, settlements=owed, released=unsent, now=now_ms())
        except AccountsUnavailable:
            raise
        except Exception:  # as in _post
            if len(owed) > 1:
                written = [self._settle_left(connection, [one], unsent) for one in owed]
                return all(written)
            logger.exception("accounts: cannot be written, and stays: %s", [one.hold for one in owed])
            return False
        return True

    def _knows(self, leftover: Leftover) -> bool:
        """Whether all accounts are in this database: another system on this machine may have the same folder."""
        accounts = {settlement.account for settlement in leftover.owed}
        query = select(func.count()).where(schema.accounts.c.id.in_(accounts))
        with self._database.read() as connection:
            return connection.execute(query).scalar_one() == len(accounts)

    # What its operator is told

    def _is_silent(self, error: AccountsUnavailable) -> None:
        if not self._silent:
            logger.error("accounts: %s; it is tried again", error.__cause__ or error)
        self._silent = True

    def _answers_again(self) -> None:
        if self._silent:
            logger.info("accounts: the database answers again")
        self._silent = False


def _taken(items: deque[ItemT], most: int | None = None) -> list[ItemT]:
    count = len(items) if most is None else min(len(items), most)
    return [items.popleft() for _ in range(count)]
