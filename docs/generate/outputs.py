"""README.md's commands and what they print: found in its text, run as they stand, and put back into it.

A block of shell or Python that another block follows, with nothing between them, is a command with its output. Knows
nothing of what the commands ask.
"""

from __future__ import annotations

import math
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
README = ROOT / "README.md"
_SERVED = "http://127.0.0.1:8000"
_BLOCKS = re.compile(r"^```(sh|python)\n((?:(?!```).*\n)+)```\n\n(```\w*\n)((?:(?!```).*\n)*)```$", re.MULTILINE)
_SPEED = re.compile(r"\d+ a second")
_SCORE = re.compile(r'(?<="score":)[-.\de]+')


@dataclass(frozen=True)
class Shown:
    """A command and its output.

    Attributes:
        kind: ``"sh"`` or ``"python"``.
        command: As the README has it.
        output: Likewise.
        start, end: Where the output stands in the README's text.
    """

    kind: str
    command: str
    output: str
    start: int
    end: int

    def agrees(self, printed: str) -> bool:
        """Whether this is what is shown, up to the speed and, of scores, what another machine rounds otherwise."""
        if _lasting(printed) != _lasting(self.output):
            return False
        scores = ([float(score) for score in _SCORE.findall(text)] for text in (printed, self.output))
        return all(math.isclose(*pair, rel_tol=2e-3) for pair in zip(*scores, strict=True))


def _lasting(output: str) -> str:
    """What of an output no machine may change."""
    return _SCORE.sub("", _SPEED.sub("", output))


def shown(text: str) -> list[Shown]:
    """Every command of the README whose output follows."""
    return [Shown(one[1], one[2], one[4], one.start(4), one.end(4)) for one in _BLOCKS.finditer(text)]


def printed(command: Shown, address: str) -> str:
    """What a command prints on stdout, asked of the server at ``address``.

    Raises:
        subprocess.CalledProcessError: It failed; its stderr has been passed on.
    """
    with tempfile.TemporaryDirectory() as scratch:
        line = command.command.replace(_SERVED, address).replace(".venv/bin/python", sys.executable)
        line = line.replace("found.png", f"{scratch}/found.png")
        argv = ["bash", "-o", "pipefail", "-c", line] if command.kind == "sh" else [sys.executable, "-c", line]
        ran = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603  our README
        return ran.stdout


def replaced(text: str, commands: Sequence[Shown], outputs: Sequence[str]) -> str:
    """The README's text with other outputs; where an output agrees with the old one, the old one stays."""
    for command, output in reversed(list(zip(commands, outputs, strict=True))):
        if not command.agrees(output):
            text = text[: command.start] + output + text[command.end :]
    return text


@contextmanager
def serving() -> Iterator[str]:
    """All miniatures behind the router in this process, as ``make serve`` has them; the address."""
    folders = sorted(path.parent for path in (ROOT / "miniatures").glob("*/config.json"))
    with ExitStack() as stack:
        engines = {path.name: stack.enter_context(_engine(path)) for path in folders}
        yield stack.enter_context(listening(create_app(LocalBackend(engines), RouterConfig())))


def _engine(folder: Path) -> Engine:
    return Engine(load(folder, dtype="float32", device="cpu"), EngineConfig(cache_bytes=64 * 1024**2))
