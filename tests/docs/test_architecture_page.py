"""docs/architecture.md names the code as it is: every path exists, and every name is defined where the page says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text("utf-8")
QUOTED = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL))
PATHS = sorted({word for word in QUOTED if "/" in word})
NOT_CODE = {"vlm", "router", "deployments", "accounts", "generate", "num_beams", "database_url"}
STEPS = re.findall(r"^\d+\. (.*?)(?=^\d+\. |^\S)", PAGE[PAGE.index("## The life") :], re.DOTALL | re.MULTILINE)


def names(text: str) -> set[str]:
    """Classes, functions and ``Class.member`` that a text names."""
    quoted = re.findall(r"`([A-Za-z_][\w.]*)`", text)
    return {name for name in quoted if not name.endswith((".py", ".md")) and name not in NOT_CODE}


@cache
def defined(path: Path) -> frozenset[str]:
    return frozenset(definitions(ast.parse(path.read_text("utf-8")).body, ""))


def definitions(body: list[ast.stmt], within: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield node.name
            yield from definitions(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{within}{node.name}"
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield f"{within}{node.target.id}"


def members(path: Path) -> set[str]:
    """What a file defines; a method or field also by its bare name."""
    return {name for full in defined(path) for name in (full, full.split(".")[-1])}


@pytest.mark.parametrize("path", PATHS)
def test_every_path_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[:40])
def test_every_step_names_what_its_files_define(step: str) -> None:
    files = [ROOT / path for path in re.findall(r"`([\w/]+\.py)`", step)] or [ROOT / "vlm/engine/core.py"]
    known = set().union(*map(members, files)) | members(ROOT / "vlm/engine/core.py")
    assert names(step) <= known, names(step) - known


def test_there_are_steps_from_the_first_byte_to_the_record() -> None:
    assert len(STEPS) == 15
    assert all(names(step) for step in STEPS)


def test_every_other_name_is_defined_somewhere() -> None:
    rest = PAGE
    for step in STEPS:
        rest = rest.replace(step, "")
    product = [
        path for folder in ("accounts", "vlm", "router", "deployments") for path in (ROOT / folder).rglob("*.py")
    ]
    known = set().union(*map(members, product))
    assert names(rest) <= known, names(rest) - known
