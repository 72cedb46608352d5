"""The quick start of docs/accounts.md works as it stands, with models that play their answers."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from accounts.environment import DATABASE_URL
from accounts.money import nano_of
from router.accounts.service import AccountsService
from router.app import create_app
from router.config import RouterConfig
from tests.docs.test_accounts import section
from tests.listening import listening
from tests.router.composition.world import Models

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", section("Quick start"), re.MULTILINE | re.DOTALL)
SHELL = [text for kind, text in BLOCKS if kind == "sh" and not text.startswith("gigarouter serve")]
"""Without those that start a whole system: a router in the test stands in for it."""
EXPORTED = ("GIGAROUTER_API_KEY", DATABASE_URL)
PHOTO = re.compile(r"https://example\.com/[\w.]+")
IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAIAAAACUFjqAAAAEklEQVR4nGP4z8CABzGMSjNgAgD4o2Od0oN4uAAAAABJRU5E"
    "rkJggg=="
)


class Shell:
    """Runs commands of the page, with a home and variables of its own."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._kept = home / "variables"
        self.variables = {"HOME": str(home), "PATH": f"{programs(home)}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def run(self, script: str, **ids: str) -> str:
        """What it prints; the variables that it exports hold for what comes after it. ``ids`` replace ``org_...``."""
        for kind, found in ids.items():
            script = script.replace(f"{kind}_...", found)
        command = ["sh", "-euc", f'{script}\nenv -0 >"$HOME/variables"']
        done = subprocess.run(
            command, env=self.variables, cwd=self._home, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        pairs = (one.partition("=") for one in self._kept.read_text("utf-8").split("\0"))
        self.variables |= {name: value for name, _, value in pairs if name in EXPORTED}
        return done.stdout


def programs(home: Path) -> Path:
    """A folder with the command, which an installation would have put somewhere."""
    program = home / "bin" / "gigarouter"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gigarouter "$@"\n', "utf-8")
    program.chmod(0o755)
    return program.parent


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """After the first of these blocks: there are tables, and a first key."""
    shell = Shell(tmp_path / "home")
    shell.run(SHELL[0])
    return shell


@pytest.fixture
def url(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A router with the settings of the page."""
    (settings,) = (text for kind, text in BLOCKS if kind == "yaml")
    monkeypatch.setenv(DATABASE_URL, shell.variables[DATABASE_URL])
    config = RouterConfig.from_args(yaml.safe_load(settings))
    with listening(create_app(Models(), config, accounts=AccountsService(config))) as url:
        shell.variables["GIGAROUTER_URL"] = url
        yield url


def test_the_commands_and_the_client_do_what_the_page_says(shell: Shell, url: str) -> None:
    pytest.importorskip("openai")
    organisation, account, credits_, key = SHELL[1].splitlines()
    org = shell.run(organisation).split()[0]
    acct = re.findall(r"acct_\w+", shell.run(account, org=org))[0]
    assert "5" in shell.run(credits_, acct=acct)
    secret = shell.run(key, acct=acct).strip()
    (program,) = (text for kind, text in BLOCKS if kind == "python")
    program = PHOTO.sub(IMAGE, program.replace("http://127.0.0.1:8000", url).replace("gr-...", secret))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, "docs/accounts.md", "exec"), {})
    cost = float(printed.getvalue().split()[-1])
    assert cost == nano_of("0.000094") / 1e9
    assert "everything adds up" in shell.run("gigarouter accounts check")
