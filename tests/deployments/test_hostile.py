"""Hostile files on the whole system: what each gets, that others are answered meanwhile, and what is left of it."""

from __future__ import annotations

import select
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from deployments.local.processes import descendants
from tests import hostile_images, worst_images
from tests.deployments.client import Question, check_error, connect
from tests.deployments.system import System, wait_until
from tests.hostile_images import after_start, chunk, good, png_of, small_png
from tests.images import encoded, halves

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),  # the first of them waits until the system is ready
    pytest.mark.skipif(sys.platform != "linux", reason="looks its processes up in /proc"),
]

MODEL, OTHER = "blip-large", "florence-2-base"
PROCESSES = ("ServeReplica:router", f"ServeReplica:{MODEL}:", f"ServeReplica:{OTHER}:")
DECODING = 2
"""Decoding processes of each model."""


@pytest.fixture(autouse=True)
def nothing_is_left_behind(system: System) -> Iterator[None]:
    """The processes are the same ones afterwards, all of them answer, and none goes on decoding."""
    before = {title: system.processes(title) for title in PROCESSES}
    yield
    wait_until(lambda: not busy(system), 30, "the end of all decoding")
    assert {title: system.processes(title) for title in PROCESSES} == before
    check_that_others_are_answered(system)
    wait_until(lambda: len(decoding(system)) == DECODING, 30, "a process in place of each that was stopped")


def decoding(system: System) -> dict[int, int]:
    """CPU time in ticks of each decoding process of the model, by its id."""
    [replica] = system.processes(f"ServeReplica:{MODEL}:")
    return {one: ticks(one) for one in descendants(replica) if b"vlm.decoding.child" in read(one, "cmdline")}


def busy(system: System) -> bool:
    """Whether any of them has used CPU time for half a second."""
    before = decoding(system)
    time.sleep(0.5)
    return any(used > before.get(one, used) for one, used in decoding(system).items())


def ticks(process: int) -> int:
    fields = read(process, "stat").rpartition(b")")[2].split()
    return int(fields[11]) + int(fields[12]) if fields else 0


def read(process: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{process}/{name}").read_bytes()
    except OSError:  # it has ended
        return b""


def check_that_others_are_answered(system: System) -> None:
    for model in (MODEL, OTHER):
        Question(model).answer(system, max_tokens=4)
    Question(MODEL, image=new_image()).answer(system, max_tokens=4)


def new_image() -> bytes:
    """A small one that has to be decoded, since no cache knows it."""
    return worst_images.copies(encoded(halves()), 1)[0]


def unanswered(connections: list[socket.socket]) -> list[socket.socket]:
    answered = select.select(connections, [], [], 0)[0]
    return [one for one in connections if one not in answered]


# Scans


def test_thousands_of_scans_are_refused_at_once(system: System) -> None:
    """Two such files stopped a model for everybody, long after their clients had left."""
    hostile = worst_images.progressive_jpeg(5000)
    with ExitStack() as stack:
        for image in worst_images.copies(hostile, 2):
            stack.enter_context(connect(system, Question(MODEL, image=image).body()))
        time.sleep(1)
    check_error(Question(MODEL, image=hostile).post(system), 400, "invalid_image")


def test_the_slowest_images_let_small_ones_pass_and_end_with_their_clients(system: System) -> None:
    """As many scans as are accepted, at as many pixels: these are decoded, one after the other."""
    images = worst_images.copies(worst_images.progressive_jpeg(), 12)
    with ExitStack() as stack:
        hostile = [stack.enter_context(connect(system, Question(MODEL, image=image).body())) for image in images]
        wait_until(lambda: busy(system), 60, "the first of them")
        check_that_others_are_answered(system)
        assert len(unanswered(hostile)) > 1  # more than the one that might have ended just now
    wait_until(lambda: not busy(system), 10, "the end of all, none of which anybody waits for")


def test_the_largest_images_are_decoded(system: System) -> None:
    for name, make in worst_images.WORST.items():
        answer = Question(MODEL, image=make()).post(system, max_tokens=4)
        assert answer.status_code == 200, (name, answer.text)


# Files that are not what they claim


def twenty_megabytes() -> dict[str, tuple[bytes, str]]:
    """Files of nothing but metadata and filling, at the limit on bytes, and the code that each gets."""
    jpeg, gif = good()["jpeg"], good()["gif"]
    start = gif.index(b",")
    return {
        "chunks": (small_png(chunk(b"prIv", b"") * 1_700_000), "invalid_image"),
        "gif-comment": (gif[:start] + b"!\xfe" + b"\1a" * 9_900_000 + b"\0" + gif[start:], "invalid_image"),
        "jpeg-comments": (after_start(jpeg, b"\xff\xfe\0\2" * 4_900_000), "invalid_image"),
        "one-column": (png_of(1, 40_000_000), "image_too_large"),
    }


@pytest.mark.parametrize("name", ["chunks", "gif-comment", "jpeg-comments", "one-column"])
def test_files_of_many_parts_are_refused(system: System, name: str) -> None:
    image, code = twenty_megabytes()[name]
    check_error(Question(MODEL, image=image).post(system), 400, code)


def test_every_hostile_file_is_answered_or_refused_with_a_typed_error(system: System) -> None:
    made = (hostile_images.bombs, hostile_images.scans, hostile_images.frames, hostile_images.parts,
            hostile_images.polyglots)  # fmt: skip
    files = {f"{make.__name__}/{name}": image for make in made for name, image in make().items()}
    files["filling"] = after_start(good()["jpeg"], b"\xff" * 19_000_000)

    def ask(name: str) -> None:
        answer = Question(MODEL, image=files[name]).post(system, max_tokens=4)
        if answer.status_code != 200:
            assert answer.status_code == 400, (name, answer.text)
            assert answer.json()["error"].keys() == {"message", "type", "param", "code"}, name
            assert answer.json()["error"]["code"] != "internal_error"

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, files))


def test_a_second_header_changes_no_size(system: System) -> None:
    """The router takes a region's pixels for those of the first header, and no decoder may take the second."""
    image = hostile_images.polyglots()["two-headers"]
    task = {"name": "region_caption", "region": {"box_px": [0, 0, 1, 1]}}
    check_error(Question(OTHER, image=image).post(system, task=task), 400, "image_parse_error")
