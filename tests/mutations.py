"""Good images, each broken in a few ways that a seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.hostile_images import good


def mutations(count: int, seed: int = 0) -> Iterator[bytes]:
    """Good files of up to some kilobytes, each broken in one to three ways."""
    rng = random.Random(seed)
    seeds = sorted(good().values())
    for _ in range(count):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 3)):
            rng.choice(_WAYS)(data, rng)
        yield bytes(data)


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 8)):
        if data:
            data[_position(data, rng)] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, rng: random.Random) -> None:
    if data:
        at = _position(data, rng)
        value = rng.choice([b"\xff\xff", b"\0\0", b"\x7f\xff\xff\xff", b"\xff\xda", b"\xff\xd9", rng.randbytes(4)])
        data[at : at + len(value)] = value


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _remove(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.randint(1, 64)]


def _repeat(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = data[at : at + rng.randint(1, 256)] * rng.randint(1, 4)


def _insert(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.randint(1, 32))


def _splice(data: bytearray, rng: random.Random) -> None:
    other = rng.choice(sorted(good().values()))
    data[rng.randrange(len(data) + 1) :] = other[rng.randrange(len(other)) :]


def _position(data: bytearray, rng: random.Random) -> int:
    """More often within the headers, which are a small part of a file."""
    return rng.randrange(min(len(data), 64) if rng.random() < 0.5 else len(data))


_WAYS = (_flip, _flip, _overwrite, _overwrite, _cut, _remove, _repeat, _insert, _splice)
