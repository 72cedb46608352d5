"""How environments that have a lock of their own are set up."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import environments
from tools.lock import FOLDER, split


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands of a set-up in a folder of its own, which are noted and not run."""
    commands: list[list[str]] = []

    def run(command: list[str]) -> None:
        commands.append(command)
        if "venv" in command:
            environments._packages_of(Path(command[-1])).mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(environments, "_run", run)
    (tmp_path / "a.txt").write_text("a==1\n", "utf-8")
    return commands


def test_packages_are_installed_once(ran: list[list[str]], tmp_path: Path) -> None:
    lock, folder = tmp_path / "a.txt", tmp_path / ".venv-a"
    assert environments.install(lock, folder) == folder / "bin/python"
    assert [command[1:3] for command in ran] == [["-m", "venv"], ["-m", "pip"]]
    assert {"--require-hashes", "--no-deps", str(lock)} <= set(ran[1])
    environments.install(lock, folder)
    assert len(ran) == 2


def test_another_lock_is_another_set_up(ran: list[list[str]], tmp_path: Path) -> None:
    environments.install(tmp_path / "a.txt", tmp_path / ".venv-a")
    (tmp_path / "a.txt").write_text("a==2\n", "utf-8")
    environments.install(tmp_path / "a.txt", tmp_path / ".venv-a")
    assert len(ran) == 4


def test_a_set_up_that_failed_is_made_again(
    ran: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = environments._run

    def fail(command: list[str]) -> None:
        noted(command)
        if "pip" in command:
            raise OSError

    monkeypatch.setattr(environments, "_run", fail)
    for _ in range(2):
        with pytest.raises(OSError):  # noqa: PT011  # it is the one above
            environments.install(tmp_path / "a.txt", tmp_path / ".venv-a")
    assert len(ran) == 4


@pytest.mark.usefixtures("ran")
def test_an_environment_over_another_one_sees_its_packages(tmp_path: Path) -> None:
    folder = tmp_path / ".venv-a"
    environments.install(tmp_path / "a.txt", folder, over=True)
    (link,) = environments._packages_of(folder).glob("*.pth")
    assert link.read_text("utf-8").strip() == sysconfig.get_path("purelib")


@pytest.mark.parametrize("name", ["bench", "k8s"])
def test_a_lock_beyond_the_product_s_has_what_is_wanted_and_nothing_that_the_product_has(name: str) -> None:
    wanted = [line for line in (FOLDER / f"{name}.in").read_text("utf-8").splitlines() if not line.startswith("#")]
    locked = split((FOLDER / f"{name}.txt").read_text("utf-8"))
    assert {canonicalize_name(Requirement(line).name) for line in wanted} <= locked.keys()
    assert [entry for entries in locked.values() for entry in entries if "--hash=sha256:" not in entry] == []
    assert not locked.keys() & split((FOLDER / "run.lock").read_text("utf-8")).keys()
