"""What the README shows is what one gets: its commands are run, and their output compared to the letter."""

from __future__ import annotations

import asyncio
import base64
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from router.app import create_app
from router.backends import LocalBackend
from router.config import RouterConfig
from vlm.engine.engine import Engine
from vlm.loading import load

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
PYTHON = ".venv/bin/python"


def shown() -> list[tuple[str, str]]:
    """(command, output) of each shell command whose output the README shows in the next block."""
    return [
        (command, output)
        for (kind, command), (_, output) in pairwise(BLOCKS)
        if kind == "sh" and command.startswith((f"{PYTHON} -m vlm miniatures/", f"{PYTHON} -m vlm.verify miniatures/"))
    ]


def test_there_is_something_to_check() -> None:
    assert (len(shown()), len(curls())) == (3, 2)


@pytest.mark.parametrize(("command", "output"), shown())
def test_a_shell_command_prints_what_is_shown(command: str, output: str, tmp_path: Path) -> None:
    line = command.replace(PYTHON, sys.executable).replace("found.png", str(tmp_path / "found.png"))
    done = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    assert without_speed(done.stdout) == without_speed(output)


def without_speed(output: str) -> str:
    """The one thing that differs from run to run."""
    return re.sub(r"\d+ a second", "N a second", output)


def curls() -> list[tuple[str, str]]:
    """(command, output) of each curl command whose output the README shows in the next block."""
    return [
        (text, output) for (kind, text), (_, output) in pairwise(BLOCKS) if kind == "sh" and text.startswith("curl")
    ]


@pytest.mark.parametrize(("command", "output"), curls())
def test_an_answer_over_http_is_the_real_one(command: str, output: str) -> None:
    """The curl command's body, sent to the router without Ray in between, and the answer to what reads it."""
    picture = base64.b64encode((ROOT / "examples/circle-and-square.png").read_bytes()).decode()
    end = command.rindex("}' |") + 1
    body = re.sub(r"'\"\$\(.*?\)\"'", picture, command[command.index("'{") + 1 : end])

    async def ask() -> str:
        with Engine(load(ROOT / "miniatures/florence-2-base")) as engine:
            app = create_app(LocalBackend({"florence-2-base": engine}), RouterConfig())
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
                said = await client.post("/v1/chat/completions", content=body)
                return said.text

    reader = command[end + 3 :]
    read = subprocess.run(reader, shell=True, input=asyncio.run(ask()), capture_output=True, text=True, check=True)
    assert read.stdout == output


@pytest.mark.parametrize("target", ["serve", "check", "test", "bench"])
def test_make_knows_what_the_readme_names(target: str) -> None:
    assert f"make {target}" in (ROOT / "README.md").read_text("utf-8")
    assert f"\n{target}: " in (ROOT / "Makefile").read_text("utf-8")
