"""The built wheel holds what the command needs, and serves the miniatures from an empty folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deployments.system import free_port
from tests.test_architecture import PACKAGED

ROOT = Path(__file__).parents[2]
BUILT_FROM = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "serve_config.local.yaml")
FOLDERS = (*PACKAGED, "miniatures", "tests", "benchmarks")
MINIATURES = "deployments/bundle/miniatures/"
MAX_MIB = 20
START_S = 240


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since building leaves files beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, source / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--wheel-dir", str(folder), str(source)], check=True)
    [built] = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_miniatures_and_the_config_that_serves_them(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    miniatures = {path.name for path in (ROOT / "miniatures").iterdir() if path.is_dir()}
    within = [name.removeprefix(MINIATURES).partition("/")[0] for name in names if name.startswith(MINIATURES)]
    assert set(within) == miniatures
    assert "deployments/bundle/serve_config.local.yaml" in names
    assert wheel.stat().st_size < MAX_MIB * 2**20


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a Python that takes the project from the wheel alone."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return {**os.environ, "PYTHONPATH": str(site), "RAY_AUTH_MODE": "token"}


@pytest.fixture
def port(installed: dict[str, str], tmp_path: Path) -> Iterator[int]:
    """That of ``gigarouter serve`` in an empty folder."""
    free, empty = free_port(), tmp_path / "empty"
    empty.mkdir()
    log = tmp_path / "log"
    with log.open("w") as out:
        command = [sys.executable, "-P", "-m", "gigarouter", "serve", "--port", str(free)]
        process = subprocess.Popen(command, cwd=empty, env=installed, stdout=out, stderr=out, start_new_session=True)
    try:
        deadline = time.monotonic() + START_S
        while not _is_ready(free):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield free
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()
    assert not list(empty.iterdir())


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.ray
def test_it_serves_the_miniatures_from_an_empty_folder(port: int, installed: dict[str, str], tmp_path: Path) -> None:
    image = ROOT / "examples" / "circle-and-square.png"
    command = [sys.executable, "-P", "-m", "gigarouter", "ask", str(image), "-m", "blip-large"]
    url = f"http://127.0.0.1:{port}"
    answer = subprocess.check_output([*command, "--url", url], cwd=tmp_path, env=installed, text=True)
    assert answer.strip()
