"""What is owed and is not yet in the database: records in files of this machine, which outlive the process.

A record is written before the last bytes of an answer are sent, and marked as owed as they go out. Whoever finds the
file of a process that has ended, bills what is marked and nothing else. The files are not flushed to the disk: they
outlive a process that is killed, and not a machine that loses its power.

A file is a row of records, each a head (length and CRC-32 of its content, and its state) and its content, JSON; zeros
follow. Its owner holds a lock on it (``flock``), which the system gives back whichever way the process ends. It marks
records through a mapping of the file: a call of the system would give other threads their turn, between the mark and
the bytes that it is about. Knows no database.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import secrets
import stat
import struct
import tempfile
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from accounts.errors import AccountsError, AccountsUnavailable
from accounts.settlements import settlement_json, settlement_of
from accounts.types import Settlement

SUFFIX = ".outbox"
SEGMENT_BYTES = 1024 * 1024
"""A file with more gets no further records, and is removed when all of it is settled."""
MAPPED_BYTES = SEGMENT_BYTES
"""Of a file; only the last record may begin behind them."""

_HEAD = struct.Struct("<IIc")
_STATE_AT = 8
_PLANNED, _OWED, _VOID = b"P", b"O", b"V"
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Slot:
    """The record of one request. Each ends in one of :meth:`owed` and :meth:`void`."""

    __slots__ = ("_outbox", "left", "segment", "start")

    def __init__(self, outbox: Outbox, segment: Segment, start: int, left: set[str]) -> None:
        self._outbox = outbox
        self.segment = segment
        self.start = start
        self.left = left

    def owed(self) -> None:
        """The last bytes of the answer are handed to the connection: what is written is owed."""
        self._outbox.mark(self, _OWED)

    def void(self) -> None:
        """It was not sent, so that nothing is owed."""
        self._outbox.mark(self, _VOID)
        self._outbox.settled(tuple(self.left))


class Segment:
    """A file of this process. Whoever calls it holds the lock of the outbox."""

    def __init__(self, path: Path, file: int) -> None:
        self.path = path
        self.size = 0
        self.open_slots = 0
        self._file = file
        os.ftruncate(file, MAPPED_BYTES)  # takes no room before something is written
        self._mapping = mmap.mmap(file, MAPPED_BYTES)

    def append(self, record: bytes) -> int:
        """Where the record begins. What could not be written in full is written over by the next one."""
        start = self.size
        if os.pwrite(self._file, record, start) != len(record):
            raise OSError("the record was written in part")
        self.size += len(record)
        self.open_slots += 1
        return start

    def mark(self, start: int, state: bytes) -> None:
        """Change the state of a record."""
        at = start + _STATE_AT
        if at < MAPPED_BYTES:
            self._mapping[at : at + 1] = state
        else:
            os.pwrite(self._file, state, at)

    def restart(self) -> None:
        """Forget all records."""
        os.ftruncate(self._file, 0)
        os.ftruncate(self._file, MAPPED_BYTES)
        self.size = 0

    def remove(self) -> None:
        """Forget all records, and the file."""
        self.path.unlink(missing_ok=True)
        self.leave()

    def leave(self) -> None:
        """Leave it to whoever finds it."""
        self._mapping.close()
        os.close(self._file)
        self._file = -1  # the system gives the number to another file


class Outbox:
    """The records of this process, and those that others have left behind. Threads may share it.

    Args:
        folder: On this machine, for all router processes there. Its files are readable by this user alone. None takes
            the folder for temporary files.

    Raises:
        AccountsError: The folder cannot be used, or others could write to it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = _private_folder(folder or Path(tempfile.gettempdir()))
        self._lock = threading.Lock()
        self._slots: dict[str, Slot] = {}
        self._segments: list[Segment] = []

    def __contains__(self, hold: object) -> bool:
        return hold in self._slots

    def __len__(self) -> int:
        """Number of settlements that are planned, or owed and not in the database."""
        return len(self._slots)

    def write(self, settlements: Sequence[Settlement]) -> Slot:
        """Keep what one request will owe once its answer has been sent.

        Raises:
            AccountsUnavailable: The disk is full or fails.
        """
        record = _record(settlements)
        try:
            with self._lock:
                segment = self._segment()
                slot = Slot(self, segment, segment.append(record), {settlement.hold for settlement in settlements})
                self._slots.update(dict.fromkeys(slot.left, slot))
                return slot
        except OSError:
            raise AccountsUnavailable("What the request costs cannot be written down now; try again.") from None

    def mark(self, slot: Slot, state: bytes) -> None:
        """Change the state of a record; for :class:`Slot`."""
        # Where the disk fails here, what was sent is still billed, unless the process is killed as well.
        with self._lock, contextlib.suppress(OSError, ValueError):  # the latter where the outbox is closed
            slot.segment.mark(slot.start, state)

    def settled(self, holds: Iterable[str]) -> None:
        """Forget what is in the database, by the ids of its holds; others are ignored."""
        with self._lock:
            for hold in holds:
                if (slot := self._slots.pop(hold, None)) is not None:
                    slot.left.discard(hold)
                    slot.segment.open_slots -= not slot.left
            self._tidy()

    def abandoned(self) -> Iterator[Leftover]:
        """The files of processes that have ended; none is seen by two processes at once."""
        with self._lock:
            own = {segment.path for segment in self._segments}
        for path in sorted(self._folder.glob("*" + SUFFIX)):
            file = None if path in own else _locked(path)
            if file is not None:
                try:
                    yield Leftover(path, *_read(file))
                finally:
                    os.close(file)

    def close(self) -> None:
        """Leave to others what is not settled."""
        with self._lock:
            for segment in self._segments:
                if segment.open_slots:
                    segment.leave()
                else:
                    segment.remove()
            self._segments.clear()
            self._slots.clear()

    def _segment(self) -> Segment:
        if not self._segments or self._segments[-1].size > SEGMENT_BYTES:
            self._segments.append(_new_segment(self._folder))
        return self._segments[-1]

    def _tidy(self) -> None:
        for segment in [segment for segment in self._segments[:-1] if not segment.open_slots]:
            self._segments.remove(segment)
            segment.remove()
        if self._segments and self._segments[-1].size and not self._segments[-1].open_slots:
            self._segments[-1].restart()


@dataclass(frozen=True, slots=True)
class Leftover:
    """What a process that has ended had in one of its files.

    Attributes:
        path: The file.
        owed: What is to be billed.
        unsent: The ids of the holds of what was not sent.
    """

    path: Path
    owed: tuple[Settlement, ...]
    unsent: tuple[str, ...]

    def remove(self) -> None:
        """All of it is in the database."""
        self.path.unlink(missing_ok=True)


def _private_folder(parent: Path) -> Path:
    """A folder below ``parent`` that this user alone can enter: others may write to that of temporary files."""
    folder = parent / f"gigarouter-outbox-{os.geteuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise AccountsError(f"the outbox {folder} cannot be made: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise AccountsError(
            f"the outbox {folder} must be a folder that belongs to this user and that no other may enter"
        )
    return folder


def _new_segment(folder: Path) -> Segment:
    """A file that is locked. Before that, another process may take it for left behind, and remove it."""
    while True:
        path = folder / f"{os.getpid()}-{secrets.token_hex(8)}{SUFFIX}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink:
            return Segment(path, file)
        os.close(file)


def _locked(path: Path) -> int | None:
    """The file, opened and locked; None while its process lives, and when it is no longer there."""
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file).st_nlink:
            return file
    os.close(file)
    return None


def _record(settlements: Sequence[Settlement]) -> bytes:
    content = _encode([settlement_json(settlement) for settlement in settlements]).encode()
    return _HEAD.pack(len(content), zlib.crc32(content), _PLANNED) + content


def _read(file: int) -> tuple[tuple[Settlement, ...], tuple[str, ...]]:
    owed: list[Settlement] = []
    unsent: list[str] = []
    for state, content in _records(os.pread(file, os.fstat(file).st_size, 0)):
        settlements = [settlement_of(found) for found in json.loads(content)]
        if state == _OWED:
            owed += settlements
        else:
            unsent += [settlement.hold for settlement in settlements]
    return tuple(owed), tuple(unsent)


def _records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """State and content of each record, up to one that was not written in full: its process ended there."""
    start = 0
    while start + _HEAD.size <= len(content):
        length, crc, state = _HEAD.unpack_from(content, start)
        start += _HEAD.size
        record = content[start : start + length]
        if not length or len(record) < length or zlib.crc32(record) != crc:
            return
        yield state, record
        start += length
