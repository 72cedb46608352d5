"""The examples for clients that are not OpenAI's own run as they stand and print what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.clients.python import world


def test_langchain(url: str) -> None:
    pytest.importorskip("langchain_openai")
    assert printed("detect_langchain.py", url) == shown("detect_langchain.py")


def shown(script: str) -> str:
    """The output on the page."""
    page = (world.ROOT / "examples" / "README.md").read_text("utf-8")
    found = re.search(rf"python examples/clients/{script}\n```\n\nIt prints:\n\n```\n([^`]*)```", page)
    assert found is not None
    return found[1]


def printed(script: str, url: str) -> str:
    """The output of a run, in this environment."""
    command = [sys.executable, f"examples/clients/{script}"]
    environment = {**os.environ, "OPENAI_BASE_URL": url}
    done = subprocess.run(command, cwd=world.ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout
