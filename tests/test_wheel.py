"""A wheel holds the product and its types, and neither what trains the checkpoints nor what tests and measures."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import pytest

from tests.test_architecture import PACKAGED

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = PACKAGED


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of a wheel. It is built of a copy, since a build leaves folders behind that the next one would read."""
    folder = tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "*.safetensors", "*.png")
    shutil.copytree(ROOT, folder / "tree", ignore=unwanted)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(folder)]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(folder / "tree")]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    with ZipFile(wheel) as opened:
        return set(opened.namelist())


def test_it_holds_the_product_and_nothing_else(names: set[str]) -> None:
    roots = {PurePosixPath(name).parts[0] for name in names}
    assert {root for root in roots if not root.endswith(".dist-info")} == set(PRODUCT)


def test_it_holds_all_of_the_product(names: set[str]) -> None:
    files = (path for folder in PRODUCT for kind in ("*.py", "*.lua") for path in (ROOT / folder).rglob(kind))
    sources = {path.relative_to(ROOT).as_posix() for path in files}
    assert sources - names == set()


@pytest.mark.parametrize("package", PRODUCT)
def test_it_holds_the_mark_of_typed_packages(names: set[str], package: str) -> None:
    assert f"{package}/py.typed" in names
