"""Decoding processes: stopped at their deadline, replaced when they end, and gone with their parent."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vlm.decoding.pool
from logs.lines import STAMP
from logs.request_id import REQUEST_ID
from tests.images import oriented, plain
from tests.oracle import MINIATURES
from tests.vlm.decoding.readers import Acting
from tests.vlm.engine.world import miniature
from vlm.decoding.child import NICENESS
from vlm.decoding.pool import DecodePool
from vlm.decoding.threads import DecodeThreads
from vlm.errors import EngineFailure, InvalidImage
from vlm.models.processor import Preprocess, ProcessedImage

ROOT = Path(__file__).resolve().parents[3]
LONG_S = 60.0
MEMORY = 64 * 1024**2
BIG = MEMORY // 2


@contextmanager
def pool(processes: int = 1, timeout_s: float = LONG_S, reader: Preprocess = Acting(), **more: Any) -> Iterator[Any]:
    made = DecodePool(reader, processes, timeout_s, MEMORY, **more)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def number(result: Future[ProcessedImage]) -> int:
    return int(result.result(30).pixels[0, 0])


def pid(decoder: DecodePool) -> int:
    return number(decoder.submit(b"pid", 0))


def until(holds: Callable[[], object]) -> None:
    patience = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < patience
        time.sleep(0.005)


def ended(process: int) -> bool:
    """Whether it has ended, reaped or not."""
    try:
        return Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(scope="module")
def one() -> Iterator[Any]:
    """A pool of one process, which no test ends."""
    with pool() as decoder:
        yield decoder


def test_an_image_that_takes_too_long_costs_one_process_and_blocks_no_other() -> None:
    with pool(2, timeout_s=1) as decoder:
        slow = decoder.submit(b"hang", BIG)
        assert pid(decoder)
        with pytest.raises(InvalidImage, match="more than 1 s to decode; save it anew") as refused:
            slow.result(30)
        assert refused.value.code == "image_parse_error"
        assert number(decoder.submit(b"pid", BIG)), "the process of big images is replaced"
        assert decoder.healthy


def test_an_image_that_is_given_up_frees_its_process_at_once() -> None:
    with pool() as decoder:
        before = pid(decoder)
        left = decoder.submit(b"hang", 0)
        until(lambda: left in {job.result for job in decoder._running})
        assert left.cancel()
        assert pid(decoder) != before
        assert ended(before)
        with pytest.raises(CancelledError):
            left.result(0)


def test_an_image_that_is_given_up_while_it_waits_is_never_decoded() -> None:
    with pool() as decoder:
        running, waiting = decoder.submit(b"hang", 0), decoder.submit(b"crash", 0)
        until(lambda: decoder._running)
        waiting.cancel()
        running.cancel()
        before = pid(decoder)
        assert pid(decoder) == before


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not keep the limit")
def test_memory_beyond_the_estimate_is_refused_and_the_process_goes_on(one: DecodePool) -> None:
    before = pid(one)
    with pytest.raises(InvalidImage, match="more memory than its size calls for") as refused:
        one.submit(b"allocate", 0).result(30)
    assert refused.value.code == "image_too_large"
    assert pid(one) == before
    assert number(one.submit(b"allocate", 128 * 1024**2)) == 128 * 1024**2


def test_errors_keep_their_words_and_bugs_do_not_show_theirs(one: DecodePool, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InvalidImage, match=r"^no image$") as refused:
        one.submit(b"invalid", 0).result(30)
    assert (refused.value.param, refused.value.code) == ("image", "invalid_image")
    with pytest.raises(EngineFailure, match=r"^The image could not be prepared\.$"):
        one.submit(b"bug", 0).result(30)
    assert "ZeroDivisionError" in caplog.text
    assert "readers.py" in caplog.text
    assert "division by zero" not in caplog.text


@pytest.mark.parametrize("decoder", [partial(DecodePool, timeout_s=LONG_S, memory_bytes=MEMORY), DecodeThreads])
def test_lines_about_an_image_are_of_the_request_that_brought_it(
    decoder: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def submit(request_id: str) -> Future[ProcessedImage]:
        REQUEST_ID.set(request_id)
        found: Future[ProcessedImage] = decodes.submit(b"bug", 0)
        return found

    decodes = decoder(Acting(), 1)
    decodes.start()
    caplog.handler.addFilter(STAMP)
    try:
        for result in [Context().run(submit, name) for name in ("first", "second")]:
            with pytest.raises(EngineFailure):
                result.result(30)
    finally:
        caplog.handler.removeFilter(STAMP)
        decodes.stop()
    assert [one.__dict__["request_id"] for one in caplog.records] == ["first", "second"]


def test_a_process_that_ends_is_replaced() -> None:
    """A decoder that crashed is its image's fault, and one that was killed is not."""
    with pool() as decoder:
        for image, error in ((b"crash", InvalidImage), (b"ended", EngineFailure)):
            with pytest.raises(error):
                decoder.submit(image, 0).result(30)
        os.kill(before := pid(decoder), signal.SIGKILL)
        until(lambda: ended(before))
        assert pid(decoder) != before, "nor does it matter that one ends while it is idle"


def test_a_process_is_replaced_after_so_many_images() -> None:
    with pool(images_per_process=2) as decoder:
        first, second, third = pid(decoder), pid(decoder), pid(decoder)
    assert first == second != third


def test_a_process_has_few_rights_and_little_in_it(one: DecodePool) -> None:
    assert number(one.submit(b"rights", 0)) == min(os.nice(0) + NICENESS, 19)


def test_stopping_ends_every_image() -> None:
    with pool() as decoder:
        results = [decoder.submit(b"hang", 0) for _ in range(3)]
        until(lambda: decoder._running)
        decoder.stop()
        for result in (*results, decoder.submit(b"pid", 0)):
            with pytest.raises(EngineFailure, match="stopping"):
                result.result(0)
    assert not any(thread.is_alive() for thread in decoder._threads)


PARENT = """
import sys, time
from tests.vlm.decoding.readers import Acting
from vlm.decoding.pool import DecodePool

pool = DecodePool(Acting(), 1, 60, 1 << 26)
pool.start()
print(int(pool.submit(b"pid", 0).result(30).pixels[0, 0]), flush=True)
pool.submit(b"hang", 0)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_a_process_ends_with_its_parent_even_if_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    until(lambda: ended(child))


def test_the_pool_is_unhealthy_once_no_process_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vlm.decoding.pool, "PAUSE_S", 0.0)

    def start(*_: object) -> Any:
        raise OSError("no more processes")

    with pool(start=start) as decoder:
        until(lambda: not decoder.healthy)
        with pytest.raises(EngineFailure, match="do not start"):
            decoder.submit(b"pid", 0).result(0)


class Unkillable:
    """A process that stays beyond its deadline."""

    alive, tasks = True, 0

    def __init__(self, *_: object) -> None:
        self.go = threading.Event()

    def decode(self, image: bytes, memory_bytes: int, deadline: float) -> ProcessedImage:
        self.go.wait(30)
        raise TimeoutError

    def close(self) -> None:
        pass

    def kill(self) -> None:
        self.go.set()


def test_the_pool_is_unhealthy_while_a_process_outlives_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vlm.decoding.pool, "OVERDUE_S", 0.0)
    with pool(timeout_s=0.01, start=Unkillable) as decoder:
        image = decoder.submit(b"hang", 0)
        until(lambda: not decoder.healthy)
        image.cancel()
        until(lambda: decoder.healthy)


class Buggy(Unkillable):
    def decode(self, image: bytes, memory_bytes: int, deadline: float) -> ProcessedImage:
        raise ZeroDivisionError


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_that_ends_a_thread_ends_its_image_too() -> None:
    with pool(start=Buggy) as decoder:
        with pytest.raises(EngineFailure, match="could not be prepared"):
            decoder.submit(b"pid", 0).result(30)
        until(lambda: not decoder.healthy)


def test_threads_that_were_stopped_refuse_an_image() -> None:
    threads = DecodeThreads(Acting(), 1)
    threads.stop()
    with pytest.raises(EngineFailure, match="stopping"):
        threads.submit(b"pid", 0).result(0)


@pytest.mark.parametrize("name", sorted(path.name for path in MINIATURES.iterdir() if (path / "config.json").exists()))
def test_a_family_decodes_in_a_process_as_in_a_thread(name: str) -> None:
    preprocess = miniature(name).processor.preprocess
    assert len(pickle.dumps(preprocess)) < 8192, "no tokenizer goes along"
    image = oriented(6, 90, 60)
    with pool(reader=preprocess) as decoder:
        there, here = decoder.submit(image, MEMORY).result(30), preprocess(image)
        with pytest.raises(InvalidImage, match="cut short"):
            decoder.submit(plain()[:-600], MEMORY).result(30)
    assert (there.size, there.pixels.dtype) == (here.size, here.pixels.dtype)
    assert np.array_equal(there.pixels, here.pixels)


UNPICKLE = "import pickle, sys; pickle.load(sys.stdin.buffer); sys.exit(bool({'torch', 'tokenizers'} & {*sys.modules}))"


def test_what_decodes_needs_neither_torch_nor_tokenizers() -> None:
    readers = [miniature(path.parent.name).processor.preprocess for path in MINIATURES.glob("*/config.json")]
    assert len(readers) >= 4
    subprocess.run([sys.executable, "-c", UNPICKLE], cwd=ROOT, input=pickle.dumps(readers), check=True)
