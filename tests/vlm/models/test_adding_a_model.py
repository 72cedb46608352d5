"""docs/adding-a-model.md, followed in a copy of the sources: every block of commands in it works."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from vlm.engine.config import EngineConfig

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "adding-a-model.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COPIED = ("vlm", "tests/__init__.py", "tests/conftest.py", "tests/images.py", "tests/oracle.py",
          "tests/vlm/models", "pyproject.toml")  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What the commands need of the sources, where they may be changed."""
    for name in COPIED:
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, target)
    return tmp_path


def follow(tree: Path, blocks: Sequence[tuple[str, str]]) -> list[str]:
    """Run the blocks one after the other as a reader does, with this interpreter; what each prints."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", str(Path(__file__).with_name("follow.py"))]
    done = subprocess.run(
        command, input=json.dumps(blocks), cwd=tree, env=environment,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outputs: list[str] = json.loads(done.stdout)
    return outputs


def test_following_the_page_makes_a_family_that_passes_the_contract_test(tree: Path) -> None:
    outputs = follow(tree, [block for block in BLOCKS if block[0] in {"sh", "python"}])
    assert len(outputs) == 5
    passed = re.search(r"^(\d+) passed", outputs[1], re.MULTILINE)
    assert passed is not None
    assert int(passed.group(1)) >= 15
    assert "family=mymodel" in outputs[2]
    assert "nothing failed" in outputs[4]


def test_the_application_has_settings_that_exist() -> None:
    [text] = [text for language, text in BLOCKS if language == "yaml"]
    [application] = yaml.safe_load(text)
    assert (application["name"], application["import_path"]) == ("my-model", "deployments.app:build")
    EngineConfig(**application["args"]["engine"])


def test_every_file_on_the_page_is_one_of_a_family() -> None:
    """And every file that two families share is on the page."""
    folders = [path.parent for path in (ROOT / "vlm" / "models").glob("*/model.py")]
    names = [path.name for folder in folders for path in folder.glob("*.py") if path.name != "__init__.py"]
    listed = re.findall(r"^\| \d+ \| `(\w+\.py)` \|", PAGE, re.MULTILINE)
    assert set(listed) == {name for name in names if names.count(name) > 1}
