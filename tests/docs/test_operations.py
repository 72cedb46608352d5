"""docs/operations.md: every symptom says what is seen and what reproduces it, and what it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text("utf-8")
SYMPTOMS = PAGE.partition("## By symptom")[2].split("\n### ")[1:]
TESTS = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
MODULES = sorted(set(re.findall(r"`python -m ([\w.]+)", PAGE)))


@cache
def functions(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text("utf-8")))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}  # fmt: skip


@pytest.mark.parametrize("symptom", SYMPTOMS, ids=lambda text: text.partition("\n")[0])
def test_a_symptom_is_described_and_reproduced(symptom: str) -> None:
    assert symptom.count("**Seen:**") == symptom.count("**Reproduced by:**") == 1
    assert "**Why" in symptom
    assert "`tests/" in symptom or "`python -m benchmarks." in symptom.partition("**Reproduced by:**")[2]


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_tests_that_are_named_exist(file: str, name: str) -> None:
    assert name in functions(ROOT / file)


@pytest.mark.parametrize("module", MODULES)
def test_programs_that_are_named_exist(module: str) -> None:
    assert find_spec(module) is not None


def sources() -> str:
    folders = ("router", "deployments", "vlm", "serve_args")
    return "".join(path.read_text("utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_words_of_errors_and_logs_are_those_of_the_code() -> None:
    # Messages are cut into several literals by the length of a line.
    code = re.sub(r'"\s*f?"', "", sources())
    for words in re.findall(r'"([A-Z][^"`\n]+?)"', PAGE.replace("\n  ", " ")):
        assert words in code, words


def test_shares_are_those_of_the_config() -> None:
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text("utf-8"))
    for application in config["applications"]:
        if application["name"] != "router":
            share = application["deployments"][0]["ray_actor_options"]["num_gpus"]
            assert re.search(rf"^\| {application['name']} \|.*\| {share} \|", PAGE, re.MULTILINE)
