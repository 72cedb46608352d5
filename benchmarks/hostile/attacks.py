"""The attacks. Each goes on until the system has dealt with it, and says what its clients got."""

from __future__ import annotations

import base64
import itertools
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

from tests.hostile_clients import connections, head, received, whole
from tests.images import encoded
from tests.worst_images import WORST, noise, progressive_jpeg

MIB = 1024 * 1024
PATIENCE_S = 150.0
"""Longer than the deadline of any request, so that every client learns its end."""
TOKENS = 4
"""Of an answer about a hostile image: what its decoding costs is measured, and not the model."""
FILES = 8192
"""Open files of the attacking process and of the one that it connects to."""

Outcome = Counter[str]
"""How many clients got which status; "left" if they did not wait, "closed" if they got nothing."""


@dataclass(frozen=True, slots=True)
class Target:
    """The port of a system on this machine, and the model that is attacked."""

    port: int
    model: str


@dataclass(frozen=True, slots=True)
class Attack:
    """One row of the table. ``prepare`` makes what ``run`` sends, before anything is measured."""

    name: str
    prepare: Callable[[], object]
    run: Callable[[Target], Outcome]


# Images


@cache
def worst() -> Sequence[bytes]:
    """One image of each kind."""
    return [make() for make in WORST.values()]


@cache
def large() -> bytes:
    """A JPEG of 40 megapixels that takes almost all the bytes that an image may have."""
    return next(image for quality in (70, 50, 40, 30, 20, 10, 5) if len(image := _noisy(quality)) < 19 * MIB)


def _noisy(quality: int) -> bytes:
    return encoded(noise(3162), "JPEG", quality=quality, subsampling=0)


@cache
def repeated_scans(number: int) -> bytes:
    """A progressive JPEG of 40 megapixels with so many scans."""
    return progressive_jpeg(number)


@cache
def _in_base64(image: bytes) -> bytes:
    return base64.b64encode(image + bytes(-len(image) % 3))  # so that more can follow


def question(model: str, image: bytes) -> list[bytes]:
    """The parts of a request about an image that no cache knows: other bytes behind it make another file of it."""
    start = f'{{"model": "{model}", "max_tokens": {TOKENS}, "messages": [{{"role": "user", "content": [{{"type": '
    start += '"image_url", "image_url": {"url": "data:image/png;base64,'
    return whole([start.encode(), _in_base64(image), base64.b64encode(secrets.token_bytes(15)), b'"}}]}]}'])


def ask_at_once(target: Target, images: Iterable[bytes]) -> Outcome:
    """Every image in a request of its own, all at the same time."""
    requests = [question(target.model, image) for image in images]
    with ThreadPoolExecutor(len(requests)) as threads:
        return Counter(threads.map(lambda parts: _send(target.port, parts), requests))


def ask_and_leave(target: Target, image: bytes, clients: int = 2) -> Outcome:
    """Clients that close their connections after a second."""
    with ThreadPoolExecutor(clients) as threads:
        outcome = Counter(threads.map(lambda _: _send(target.port, question(target.model, image), 1.0), range(clients)))
    time.sleep(5)  # whatever they have left behind is felt now
    return outcome


def _send(port: int, parts: Sequence[bytes], patience_s: float = PATIENCE_S) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except OSError:  # it has been refused, and the answer may be there
            pass
        connection.settimeout(patience_s)
        try:
            return _status(received(connection))
        except TimeoutError:
            return "left"


def _status(answer: bytes) -> str:
    return answer[9:12].decode() or "closed"


# Connections


def slow_bodies(target: Target) -> Outcome:
    """One byte of each body."""
    with connections(target.port, 1500, head("content-length: 100") + b"{", PATIENCE_S) as slow:
        return Counter(_status(received(one)) for one in slow)


def slow_headers(target: Target) -> Outcome:
    """Headers without an end."""
    with connections(target.port, 500, head("x: y")[:-4], PATIENCE_S) as slow:
        return Counter(_status(received(one)) for one in slow)


def idle_connections(target: Target) -> Outcome:
    """Nothing at all."""
    with connections(target.port, 4000, b"", PATIENCE_S) as idle:
        return Counter(_status(received(one)) for one in idle)


def slow_readers(target: Target, seconds: int = 20) -> Outcome:
    """Each asks for a list 16 times and takes one byte of the answers a second."""
    asked = b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" * 16
    outcome: Outcome = Counter()
    with connections(target.port, 200, asked, PATIENCE_S, receive_buffer=2048) as readers:
        for _ in range(seconds):
            for one in readers:
                outcome["bytes read"] += len(one.recv(1))
            time.sleep(1)
    return outcome


def held_bodies(target: Target, clients: int = 100) -> Outcome:
    """29 of 30 MiB of each body."""
    body = bytes(29 * MIB)
    with ThreadPoolExecutor(clients) as threads:
        parts = [head(f"content-length: {30 * MIB}"), body]
        return Counter(threads.map(lambda _: _send(target.port, parts), range(clients)))


def largest_bodies(target: Target, clients: int = 32) -> Outcome:
    """All 30 MiB of each body, which is JSON and no question."""
    parts = whole([b'{"model": "', b"a" * (30 * MIB - 13), b'"}'])
    with ThreadPoolExecutor(clients) as threads:
        return Counter(threads.map(lambda _: _send(target.port, parts), range(clients)))


def quiet(_: Target) -> Outcome:
    """Nobody attacks."""
    time.sleep(15)
    return Counter()


def mixed(number: int) -> list[bytes]:
    """So many images of all kinds in turns."""
    return list(itertools.islice(itertools.cycle(worst()), number))


def nothing() -> None:
    """What it sends is made at once."""


ATTACKS = (
    Attack("nothing", worst, quiet),
    Attack("64 images of 40 megapixels, below 3 MiB", worst, lambda target: ask_at_once(target, mixed(64))),
    Attack("64 images of 40 megapixels, of 17 MiB", large, lambda target: ask_at_once(target, [large()] * 64)),
    Attack(
        "2 JPEGs with 5,000 scans, clients leave",
        lambda: repeated_scans(5000),
        lambda target: ask_and_leave(target, repeated_scans(5000)),
    ),
    Attack(
        "2 JPEGs with 32 scans, clients leave",
        lambda: repeated_scans(32),
        lambda target: ask_and_leave(target, repeated_scans(32)),
    ),
    Attack("1,500 slow bodies", nothing, slow_bodies),
    Attack("500 slow headers", nothing, slow_headers),
    Attack("4,000 idle connections", nothing, idle_connections),
    Attack("200 clients that read a byte a second", nothing, slow_readers),
    Attack("100 held bodies of 29 MiB", nothing, held_bodies),
    Attack("32 bodies of 30 MiB", nothing, largest_bodies),
)
