"""Whether the time of a refusal tells how much of a key was guessed right.

    python -m benchmarks.key_timing --tries 10000

Wrong keys of two kinds are sent in random order to the middleware that asks for keys, in this process: with no network
between, nothing blurs the times. Of one kind the first 30 characters are those of a key that is good, of the other none
are. Each is sent twice: at first it is asked for in the database, and then it is found in memory to be no key.

For comparison, both kinds are also told apart by a search that looks at one character after the other, as a careless
server would: there, the times must differ, or else this would not see it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ks_2samp, mannwhitneyu

from accounts.database import open_database
from accounts.directory import Directory, open_directory
from accounts.keys import PREFIX
from accounts.migrate import upgrade
from accounts.types import Key, KeySpec
from router.accounts.authentication import Authentication
from router.accounts.keyring import MAX_REMEMBERED, Keyring
from router.asgi.billing import Access

SHARED = 30
"""Characters of a right key that the one kind begins with."""
CHARS = 43
RIGHT, WRONG = "right prefix", "wrong prefix"
KINDS = (RIGHT, WRONG)
SAMPLES = 400
"""Of the bootstrap."""
MOST_TRIES = MAX_REMEMBERED // 2

Times = dict[str, list[float]]


@dataclass(frozen=True)
class Comparison:
    """The times of both kinds, in microseconds.

    Attributes:
        name: What was done.
        medians: Of the right and the wrong prefixes.
        difference: Of the medians: the lowest and the highest within 95 %.
        same: The probability of such distributions, or others that differ as much, if both kinds take the same time:
            by Kolmogorov and Smirnov, and by Mann and Whitney.
    """

    name: str
    medians: tuple[float, float]
    difference: tuple[float, float]
    same: tuple[float, float]

    @property
    def tells(self) -> bool:
        """Whether the times tell the kinds apart."""
        return min(self.same) < 0.01

    def __str__(self) -> str:
        right, wrong = self.medians
        low, high = self.difference
        verdict = "DIFFER" if self.tells else "do not differ"
        return (
            f"{self.name}: {RIGHT} {right:.2f} us, {WRONG} {wrong:.2f} us, difference {low:+.3f} to {high:+.3f} us "
            f"(95 %), p = {self.same[0]:.3f} (KS), {self.same[1]:.3f} (MW): {verdict}"
        )


class NoLimit:
    """Wrong keys that nobody counts."""

    def may_try(self, address: str) -> None:
        """Always."""

    async def failed(self, address: str) -> None:
        """Nothing happens."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if the times tell something, or do not where they must."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.key_timing", description="Time refusals of keys.")
    parser.add_argument("--tries", type=int, default=MOST_TRIES, help=f"of each kind, at most {MOST_TRIES}")
    options = parser.parse_args(arguments)
    if not 0 < options.tries <= MOST_TRIES:
        parser.error(f"--tries must be from 1 to {MOST_TRIES}: no more are kept in memory")
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(f"sqlite:///{Path(folder) / 'accounts.db'}")
        upgrade(database)
        found = asyncio.run(_measure(open_directory(database), options.tries))
        database.close()
    print("\n".join(map(str, found)))
    *ours, careless = found
    return 0 if careless.tells and not any(one.tells for one in ours) else 1


async def _measure(directory: Directory, tries: int) -> list[Comparison]:
    right = _right_key(directory)
    keyring = Keyring(directory, directory.digest, patience_s=5.0)
    app = Authentication(_nothing, keyring, NoLimit(), _no_access)
    guesses = [(kind, _guess(right, kind)) for kind in KINDS for _ in range(tries)]

    async def ask(secret: str) -> None:
        await _refused(app, secret)

    async def careless(secret: str) -> None:
        _same(secret, right)

    async with keyring.running():
        return [
            compared("asked for in the database", await _times(ask, guesses)),
            compared("in memory", await _times(ask, guesses)),
            compared("character by character", await _times(careless, guesses)),
        ]


def _right_key(directory: Directory) -> str:
    owner = directory.create_organisation("Example", "benchmark")
    account = directory.create_account(owner.id, "example", "benchmark")
    return directory.create_key(account.id, KeySpec("example"), "benchmark").secret


def _guess(right: str, kind: str) -> str:
    """A key that nobody has sent before."""
    text = secrets.token_urlsafe(CHARS)
    if kind == RIGHT:
        shared = len(PREFIX) + SHARED
        return right[:shared] + text[: CHARS - SHARED]
    other = "A" if right[len(PREFIX)] != "A" else "B"  # the first character is wrong already
    return PREFIX + other + text[: CHARS - 1]


async def _times(ask: Callable[[str], Awaitable[None]], guesses: Sequence[tuple[str, str]]) -> Times:
    """Both kinds in random order, so that whatever else happens on the machine happens to both."""
    times: Times = {kind: [] for kind in KINDS}
    for kind, secret in random.sample(guesses, len(guesses)):
        began = time.perf_counter_ns()
        await ask(secret)
        times[kind].append((time.perf_counter_ns() - began) / 1000)
    return times


def compared(name: str, times: Times) -> Comparison:
    """What the times of both kinds tell."""
    right, wrong = times[RIGHT], times[WRONG]
    random_ = np.random.default_rng(0)
    one, other = np.array(right), np.array(wrong)
    differences = [
        float(np.median(random_.choice(one, one.size)) - np.median(random_.choice(other, other.size)))
        for _ in range(SAMPLES)
    ]
    low, high = np.percentile(differences, [2.5, 97.5])
    same = (float(ks_2samp(right, wrong).pvalue), float(mannwhitneyu(right, wrong).pvalue))
    return Comparison(name, (statistics.median(right), statistics.median(wrong)), (float(low), float(high)), same)


async def _refused(app: Authentication, secret: str) -> None:
    statuses: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [(b"authorization", f"Bearer {secret}".encode())],
        "client": ("192.0.2.1", 1),
    }
    await app(scope, _receive, send)
    if statuses != [401]:
        raise RuntimeError(f"a wrong key was answered with {statuses}")


async def _receive() -> Any:
    return {"type": "http.disconnect"}


async def _nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    raise RuntimeError("a wrong key was let in")


def _no_access(key: Key) -> Access:
    raise RuntimeError(f"a wrong key was taken for {key.id}")


def _same(one: str, other: str) -> bool:
    """As no server should compare."""
    return all(char == right for char, right in zip(one, other, strict=True))


if __name__ == "__main__":
    sys.exit(main())
