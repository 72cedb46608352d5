"""Keeps a model's parameters in files as they lie in memory, so that all processes of a machine can map the same one.

A checkpoint has other names, often another dtype, and the parts of our fused matrices one by one, so that each process
would otherwise have a copy of its own. Whoever comes first writes the file of a key, others wait for it, and everybody
maps it privately: pages are shared until somebody writes to one, which changes nobody else's. What is wrong with the
folder or with a file costs a line in the log and time, but never an answer.

    header, padded to a page | parameter | padding to 64 bytes | parameter | ...
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import mmap
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vlm.checkpoint.files import Checkpoint
from vlm.checkpoint.unfit import unreadable

log = logging.getLogger(__name__)

SUFFIX, UNFINISHED = ".weights", ".unfinished"
"""Ends of the names of our files."""

_OURS = f"*-{'[0-9a-f]' * 32}{SUFFIX}"
"""Their whole names; nothing else in the folder is touched: other programs have files of weights, too."""

MAX_BYTES = 32 * 1024**3
"""All four published models in float32 take 17 GB, and in bfloat16 half of it."""

_FORMAT = 1
_HEADER_BYTES = 4096
_ALIGNMENT = 64  # of a cache line, and of what torch allocates itself: other addresses can round sums differently
_SPOT_BYTES = 4096
_MAX_NAMES_BYTES = 16 * 1024**2  # what a safetensors file begins with: names and shapes; usually below 100 kB
_MADV_POPULATE_READ = 22  # Linux 5.14; Python has no name for it
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH

Fill = Callable[[Mapping[str, Tensor]], None]
"""Writes the values of all parameters into the tensors that it gets."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file holds.

    Attributes:
        name: What people see in the file's name, such as the model's family.
        key: Everything that decides about the bytes: the checkpoint's files, and how they are converted.
        sizes: The shape of each parameter, in their order in the file.
        dtype: Of all of them.
    """

    name: str
    key: str
    sizes: Mapping[str, torch.Size]
    dtype: torch.dtype

    @property
    def digest(self) -> str:
        """Of the key, the shapes and the dtype."""
        shapes = [(name, list(size)) for name, size in self.sizes.items()]
        facts = json.dumps([_FORMAT, sys.byteorder, str(self.dtype), self.key, shapes])
        return hashlib.sha256(facts.encode()).hexdigest()

    @property
    def file(self) -> str:
        """The name of the file."""
        return f"{self.name}-{str(self.dtype).removeprefix('torch.')}-{self.digest[:32]}{SUFFIX}"

    def places(self) -> Iterator[tuple[str, int, int]]:
        """(name, first byte, number of bytes) of each parameter."""
        start = _HEADER_BYTES
        for name, size in self.sizes.items():
            length = math.prod(size) * self.dtype.itemsize
            yield name, start, length
            start += -(-length // _ALIGNMENT) * _ALIGNMENT

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return max(start + length for _, start, length in self.places())

    def tensors(self, memory: mmap.mmap) -> dict[str, Tensor]:
        """The parameters in a mapped file, without a copy."""
        whole = torch.frombuffer(memory, dtype=torch.uint8)
        return {
            name: whole[start : start + length].view(self.dtype).view(self.sizes[name])
            for name, start, length in self.places()
        }

    def header(self, memory: mmap.mmap) -> bytes:
        """What the file begins with; it holds a hash of the start of each parameter.

        A hash of everything would take longer than reading the checkpoint. This one finds what a machine that lost its
        power leaves behind, and files that were copied in part.
        """
        spots = hashlib.sha256()
        for _, start, length in self.places():
            spots.update(memory[start : start + min(length, _SPOT_BYTES)])
        facts = {"format": _FORMAT, "layout": self.digest, "spots": spots.hexdigest()}
        return json.dumps(facts).encode().ljust(_HEADER_BYTES)


def identity(checkpoint: Checkpoint) -> str:
    """What tells a checkpoint's weights from all others on this machine, without reading them.

    Whatever changes a file gives it another time, size or number, and nobody can set the time of its last change
    (ctime) back. Raises CheckpointError as ``tensors`` does.
    """
    files = [_file_identity(path) for path in checkpoint.weight_files()]
    return json.dumps([checkpoint.revision, checkpoint.config, files], sort_keys=True)


def _file_identity(path: Path) -> list[int | str]:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            header = file.read(8)
            header += file.read(min(int.from_bytes(header, "little"), _MAX_NAMES_BYTES))
    except OSError as error:
        raise unreadable(path, "cannot be read") from error
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, hashlib.sha256(header).hexdigest()]


class _Unusable(Exception):
    """A file that has to be made again; the message says why."""


@dataclass(frozen=True, slots=True)
class WeightsCache:
    """A folder for files of parameters.

    Attributes:
        folder: Made if it is not there. It is not used if it, or what is in it, belongs to another user or can be
            written by one.
        max_bytes: All files together; those that have not been used for the longest time are removed for new ones.
    """

    folder: Path
    max_bytes: int = MAX_BYTES

    def parameters(self, layout: Layout, fill: Fill) -> dict[str, Tensor] | None:
        """The parameters, mapped; made by ``fill`` if nobody has done so before.

        Returns None where the cache cannot be used; the log says why. Raises what ``fill`` raises.
        """
        try:
            self._check_folder()
            return self._mapped(layout) or self._made(layout, fill)
        except OSError as error:
            log.warning("the weights cache %s is not used: %s", self.folder, error)
            return None

    def _check_folder(self) -> None:
        if sys.platform != "linux":
            raise OSError("it needs Linux")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if fault := _fault(os.stat(self.folder)):
            raise OSError(f"the folder {fault}")

    def _mapped(self, layout: Layout) -> dict[str, Tensor] | None:
        """The parameters of a file that is there; None without one, or if it is not as it should be."""
        path = self.folder / layout.file
        with suppress(FileNotFoundError), _opened(path, os.O_RDONLY) as file:
            try:
                memory = _checked(file, layout)
            except _Unusable as error:
                log.warning("%s %s; it is made again", path, error)
                if _is(path, file):  # otherwise another process has made it again
                    path.unlink(missing_ok=True)
                return None
            os.utime(file)  # of files in use, the time is what says which one has not been used for long
            return layout.tensors(memory)
        return None

    def _made(self, layout: Layout, fill: Fill) -> dict[str, Tensor] | None:
        """Make the file, or wait for another process that does; it is complete once it has its name."""
        with self._locked(layout) as (file, path):
            try:
                if found := self._mapped(layout):
                    return found
                self._make_room(layout)
                _write(file, layout, fill)
                path.rename(self.folder / layout.file)
            finally:
                path.unlink(missing_ok=True)  # of one that failed, or was not needed; it may be a newcomer's by now
        log.info("%s: %d MiB of parameters for every process of this machine", self.folder, layout.size >> 20)
        return self._mapped(layout)

    @contextmanager
    def _locked(self, layout: Layout) -> Iterator[tuple[int, Path]]:
        """The unfinished file of the layout, which only one process has at a time: the kernel lets go if it ends."""
        path = self.folder / f"{layout.file}{UNFINISHED}"
        while True:
            with _opened(path, os.O_RDWR | os.O_CREAT) as file:
                _lock(file)
                if _is(path, file):  # otherwise another process has finished it, or given up, while this one waited
                    yield file, path
                    return

    def _make_room(self, layout: Layout) -> None:
        """Remove files until there is room for one more."""
        if layout.size > self.max_bytes:
            raise OSError(f"the parameters take {layout.size} bytes, and it may hold {self.max_bytes}")
        self._remove_abandoned(layout)
        held = sorted(self._finished())  # the one that has not been used for the longest time first
        room = self.max_bytes - sum(size for _, size, _ in held)
        for _, size, path in held:
            if room >= layout.size:
                return
            room += size
            log.info("%s is removed to make room", path)
            path.unlink(missing_ok=True)

    def _finished(self) -> Iterator[tuple[int, int, Path]]:
        """(time of the last use, size, path) of each file; some may be removed at the same time."""
        for path in self.folder.glob(_OURS):
            with suppress(FileNotFoundError):
                found = path.stat()
                yield found.st_mtime_ns, found.st_size, path

    def _remove_abandoned(self, layout: Layout) -> None:
        """Remove what processes have left unfinished that were killed."""
        for path in self.folder.glob(f"{_OURS}{UNFINISHED}"):
            if path.name == f"{layout.file}{UNFINISHED}":
                continue
            with suppress(FileNotFoundError), _opened(path, os.O_RDWR) as file:
                if _try_lock(file):
                    path.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    file = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _fault(found: os.stat_result) -> str:
    """Why what another user could have done to a file or folder rules it out; empty if nobody could."""
    if found.st_uid != os.geteuid():
        return f"belongs to another user ({found.st_uid})"
    if found.st_mode & _WRITABLE_BY_OTHERS:
        return f"can be written by other users (mode {stat.S_IMODE(found.st_mode):o})"
    return ""


def _checked(file: int, layout: Layout) -> mmap.mmap:
    """The file, mapped privately and read into memory. Raises _Unusable."""
    found = os.fstat(file)
    if fault := _fault(found):
        raise _Unusable(fault)
    if found.st_size != layout.size:
        raise _Unusable(f"has {found.st_size} bytes instead of {layout.size}")
    memory = mmap.mmap(file, 0, access=mmap.ACCESS_COPY)
    _read_ahead(memory)
    if memory[:_HEADER_BYTES] != layout.header(memory):
        raise _Unusable("is damaged")
    return memory


def _read_ahead(memory: mmap.mmap) -> None:
    """Have all pages in memory, so that no request waits for the disk. Raises _Unusable if the disk cannot be read."""
    try:
        memory.madvise(_MADV_POPULATE_READ)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a signal would end whoever reads such a page
            raise _Unusable(f"cannot be read ({os.strerror(error.errno or 0)})") from error
        memory.madvise(mmap.MADV_WILLNEED)  # an older kernel


def _write(file: int, layout: Layout, fill: Fill) -> None:
    """Fill the file through a shared mapping, which needs no second copy in memory, and wait for the disk."""
    os.ftruncate(file, 0)
    os.posix_fallocate(file, 0, layout.size)  # a full disk then shows here, and not as a signal while it is filled
    memory = mmap.mmap(file, layout.size, access=mmap.ACCESS_WRITE)
    fill(layout.tensors(memory))
    memory[:_HEADER_BYTES] = layout.header(memory)
    memory.flush()
    os.fsync(file)


def _lock(file: int) -> None:
    import fcntl  # not on Windows

    if not _try_lock(file):
        log.info("waiting for another process, which prepares the same weights")
        fcntl.flock(file, fcntl.LOCK_EX)


def _try_lock(file: int) -> bool:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(path: Path, file: int) -> bool:
    """Whether the path still names the open file."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(file))
    except FileNotFoundError:
        return False
