"""The commands that the documentation shows with their output: found in a page, run, and their output put back.

A block of shell or Python that is followed by another block, with nothing between the two, is a command with its
output. What the commands do does not matter here.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from router.app import create_app
from router.backends.base import LocalBackend
from router.config import RouterConfig
from tests.listening import listening
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.loading import load

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/api.md", "docs/composition.md", "docs/library.md", "examples/README.md")
"""The pages whose outputs are made here, relative to the repository."""

_SERVED = "http://127.0.0.1:8000"
_EXAMPLE = re.compile(r"^```(sh|python)\n((?:(?!```).*\n)+)```\n\n(```\w*\n)((?:(?!```).*\n)*)```$", re.MULTILINE)
_SCORE = re.compile(r'(?:(?<="score":)|(?<="confidence":)) ?\d[-+.\de]*')
"""Scores, and the confidences that follow from them."""
_VARYING = re.compile(
    r"\d+ a second"
    r"|chatcmpl-[0-9a-f]{32}"
    r"|req_[0-9a-f]{32}"
    r"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # Ray Serve's request ids
    r'|(?<="created":) ?\d{10}'
    r'|(?<=_ms":) ?[\d.]+'
    r"|(?<=openai-processing-ms: )\d+"
    r'|(?<="cached_tokens":) ?\d+'
    r'|(?<="image_cache":) ?"(?:hit|miss)"'
)
"""Speeds, ids and times; and whether an image has been encoded before, which depends on the order of the commands."""


@dataclass(frozen=True)
class Example:
    """A command of a page, and its output there.

    Attributes:
        kind: ``"sh"`` or ``"python"``.
        command: Text of the command's block.
        output: Text of the output's block.
        start, end: Offsets of ``output`` in the page.
    """

    kind: str
    command: str
    output: str
    start: int
    end: int

    def matches(self, printed: str) -> bool:
        """Whether ``printed`` is the output shown, apart from what varies and from the rounding of scores."""
        if _stable(printed) != _stable(self.output):
            return False
        scores = ([float(score) for score in _SCORE.findall(text)] for text in (printed, self.output))
        return all(math.isclose(*pair, rel_tol=2e-3) for pair in zip(*scores, strict=True))


def _stable(output: str) -> str:
    """The part of an output that is the same on every machine and in every run."""
    return _SCORE.sub("", _VARYING.sub("", output))


def read_page(page: str) -> str:
    """The text of one of :data:`PAGES`."""
    return (ROOT / page).read_text("utf-8")


def find_examples(text: str) -> list[Example]:
    """Every command of a page that is followed by its output."""
    return [Example(one[1], one[2], one[4], one.start(4), one.end(4)) for one in _EXAMPLE.finditer(text)]


def run(example: Example, address: str) -> str:
    """What a command prints on stdout, with the server at ``address`` (``http://host:port``) in place of the default.

    Raises:
        subprocess.CalledProcessError: It failed; its stderr has been passed on.
    """
    with tempfile.TemporaryDirectory() as scratch:
        command = example.command.replace(_SERVED, address).replace(".venv/bin/python", sys.executable)
        command = command.replace("found.png", f"{scratch}/found.png")
        argv = ["bash", "-o", "pipefail", "-c"] if example.kind == "sh" else [sys.executable, "-c"]
        environment = {**os.environ, "OPENAI_BASE_URL": f"{address}/v1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(  # noqa: S603  # the commands are this repository's own pages
            [*argv, command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout


def replace_outputs(text: str, examples: Sequence[Example], outputs: Sequence[str]) -> str:
    """The page with new outputs; one that matches what is there stays as it is."""
    for example, output in reversed(list(zip(examples, outputs, strict=True))):
        if not example.matches(output):
            text = text[: example.start] + output + text[example.end :]
    return text


@contextmanager
def serving() -> Iterator[str]:
    """All miniatures behind the router in this process, as ``make serve`` has them.

    Yields:
        The server's address, ``http://127.0.0.1:PORT``.
    """
    folders = sorted(path.parent for path in (ROOT / "miniatures").glob("*/config.json"))
    with ExitStack() as stack:
        engines = {path.name: stack.enter_context(_engine(path)) for path in folders}
        files = stack.enter_context(tempfile.TemporaryDirectory())
        config = RouterConfig(files_url=files, files_without_key=True)
        yield stack.enter_context(listening(create_app(LocalBackend(engines), config)))


def _engine(folder: Path) -> Engine:
    return Engine(load(folder, dtype="float32", device="cpu"), EngineConfig(cache_bytes=64 * 1024**2))
