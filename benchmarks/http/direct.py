"""transformers in a process of its own, which waits without using the CPU until it is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from benchmarks.http.servers import ROOT
from benchmarks.peers.captions import Setting


class Direct:
    """The process. ``texts`` has what it says about each image, one at a time."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        assert popen.stdin is not None
        assert popen.stdout is not None
        self.process = popen.pid
        self._asks: IO[str] = popen.stdin
        self._answers: IO[str] = popen.stdout
        self.texts: list[str] = self._read()["texts"]

    def measure(self, batch: int, seconds: float) -> dict[str, float]:
        """The ``images`` that it has captioned in fixed batches, in how many ``seconds`` and ``cpu_seconds``."""
        print(json.dumps({"batch": batch, "seconds": seconds}), file=self._asks, flush=True)
        answer: dict[str, float] = self._read()
        return answer

    def _read(self) -> Any:
        line = self._answers.readline()
        if not line:
            raise SystemExit("error: transformers has ended; it has printed why")
        return json.loads(line)


@contextmanager
def transformers(setting: Setting, images: Sequence[bytes], folder: Path) -> Iterator[Direct]:
    """Start it; it ends with the block."""
    for number, image in enumerate(images):
        (folder / f"{number:04}.jpg").write_bytes(image)
    command = [sys.executable, "-m", "benchmarks.peers.direct", "--images", str(folder), *setting.options()]
    with subprocess.Popen(  # noqa: S603  # our own command
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as popen:
        try:
            yield Direct(popen)
        finally:
            popen.terminate()
