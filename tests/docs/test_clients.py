"""docs/clients.md names the versions of the Python clients that `make clients` installs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.lock import CLIENTS, FOLDER, split

PAGE = (Path(__file__).parents[2] / "docs/clients.md").read_text("utf-8").partition("\n## JavaScript\n")[0]
ROW = re.compile(r"^\| \[`([\w-]+)(?:\[\w+\])?`\]\(#\w.*?\)[^|]* \| ([^|]+) \|", re.MULTILINE)
ALIASES = {"pydantic-ai": "pydantic-ai-slim"}
NOT_CLIENTS = {"pytest", "pytest-timeout"}


def versions(name: str) -> list[str]:
    """Those of a client in the locks, in their order."""
    locked = [split((FOLDER / f"{lock}.txt").read_text("utf-8")) for lock in CLIENTS if name in wanted(lock)]
    return [packages[name][0].split()[0].partition("==")[2] for packages in locked]


def wanted(lock: str) -> set[str]:
    lines = (FOLDER / f"{lock}.in").read_text("utf-8").splitlines()
    return {str(canonicalize_name(Requirement(line).name)) for line in lines if not line.startswith("#")} - NOT_CLIENTS


ROWS = [(ALIASES.get(name, name), said) for name, said in ROW.findall(PAGE)]


@pytest.mark.parametrize(("name", "said"), ROWS)
def test_the_page_names_the_version_that_is_tested(name: str, said: str) -> None:
    assert re.findall(r"\d[\w.]*", said) == versions(name), "run `make clients`, and say on the page what it says"


def test_every_client_that_is_tested_is_on_the_page() -> None:
    assert {name for name, _ in ROWS} == {name for lock in CLIENTS for name in wanted(lock)}
