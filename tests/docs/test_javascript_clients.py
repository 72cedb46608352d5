"""docs/clients.md names the versions of the JavaScript clients that are tested."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/clients.md").read_text("utf-8").partition("\n## JavaScript\n")[2]
NODE = ROOT / "tests/clients/node"
PACKAGES: dict[str, str] = json.loads((NODE / "package.json").read_text("utf-8"))["dependencies"]
NOT_CLIENTS = {"@langchain/core", "zod"}


@pytest.mark.parametrize("name", sorted(PACKAGES.keys() - NOT_CLIENTS))
def test_the_page_names_the_version_that_is_tested(name: str) -> None:
    rows = re.findall(rf"^\| [^|]*`{re.escape(name)}`.*", PAGE, re.MULTILINE)
    assert rows, name
    assert all(PACKAGES[name] in row for row in rows)


def test_the_lock_has_the_versions_that_are_asked_for() -> None:
    lock = json.loads((NODE / "package-lock.json").read_text("utf-8"))["packages"]
    assert lock[""]["dependencies"] == PACKAGES
    assert {name: lock[f"node_modules/{name}"]["version"] for name in PACKAGES} == PACKAGES
    assert all("resolved" not in package for package in lock.values())  # no registry but the one that npm is set up for
