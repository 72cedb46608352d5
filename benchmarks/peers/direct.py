"""transformers' ``generate`` without a server, one image after the other or in fixed batches.

    echo '{"batch": 8, "seconds": 2}' | python -m benchmarks.peers.direct --folder FOLDER --images IMAGES

``IMAGES`` is a folder of JPEGs. The first line of its output has the text of each of them, generated alone. Then each
line of its input asks for batches during some seconds, and its answer has the number of images, and the seconds on the
clock and on a CPU that they took.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import IO

from benchmarks.peers.captions import Captions, parser, setting_of


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer every line of the standard input."""
    options = parser("python -m benchmarks.peers.direct")
    options.add_argument("--images", type=Path, required=True)
    chosen = options.parse_args(arguments)
    captions = Captions(setting_of(chosen))
    images = [path.read_bytes() for path in sorted(chosen.images.iterdir())]
    serve(captions, images, sys.stdin, sys.stdout)


def serve(captions: Captions, images: Sequence[bytes], asked: IO[str], answers: IO[str]) -> None:
    """Write the texts, then an answer to every line."""
    _write(answers, {"texts": [captions.of([image])[0] for image in images]})
    for line in asked:
        _write(answers, measure(captions, images, **json.loads(line)))


def measure(captions: Captions, images: Sequence[bytes], batch: int, seconds: float) -> dict[str, float]:
    """Answer whole batches until the time is over."""
    ahead = cycle(images)
    began, cpu, count = time.perf_counter(), time.process_time(), 0
    while (took := time.perf_counter() - began) < seconds or not count:
        captions.of(list(islice(ahead, batch)))
        count += batch
    return {"images": count, "seconds": took, "cpu_seconds": time.process_time() - cpu}


def _write(answers: IO[str], answer: object) -> None:
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
