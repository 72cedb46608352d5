"""A set-up that was interrupted, or no longer fits, is made again; one that is sound is left alone.

Interpreter and pip are a stand-in that notes what it was asked, and can be killed over any step together with make's
shell, as by a power cut. The real thing takes the package index, and so is CI's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tools.lock import ROOT

STAND_IN = """\
#!/bin/sh
case "$*" in
*version_info*) echo "${STAND_IN_VERSION:-3.12}"; exit ;;
esac
echo "$*" >>calls
case "$*" in
"-m venv --clear "*)
    rm -rf .venv
    mkdir -p .venv/bin
    [ "$STAND_IN_DIES" != venv ] || kill -9 $PPID
    cp "$0" .venv/bin/python ;;
*"${STAND_IN_DIES:-nowhere}"*) kill -9 $PPID ;;
*"${STAND_IN_FAILS:-nowhere}"*) echo "no" >&2; exit 1 ;;
esac
"""
STEPS = ["-m venv --clear", "requirements/{}.lock", "requirements/torch.lock", "--editable", "-m pip check"]


class Checkout:
    """The files that a set-up reads, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("Makefile", "pyproject.toml", "tools/environment.sh", "requirements"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, folder / name)
        stand_in = folder / "stand-in"
        stand_in.write_text(STAND_IN, "utf-8")
        stand_in.chmod(0o755)

    def make(self, goal: str = "installed", **environment: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "calls").unlink(missing_ok=True)
        environment = {"PYTHON": "./stand-in", "PATH": os.environ["PATH"], **environment}
        command = ["make", goal]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    def steps(self) -> list[str]:
        """What the last call of make asked for, shortened to the words of :data:`STEPS`."""
        calls = self.folder / "calls"
        words = [step.format(kind) for step in STEPS for kind in ("run", "dev")]
        lines = calls.read_text("utf-8").splitlines() if calls.exists() else []
        return [next(word for word in words if word in line) for line in lines]


def all_steps(kind: str) -> list[str]:
    return [step.format(kind) for step in STEPS]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "a folder")


def test_once_and_not_again(checkout: Checkout) -> None:
    made = checkout.make()
    assert made.returncode == 0, made.stderr
    assert checkout.steps() == all_steps("run")
    assert checkout.make().stdout == ""
    assert checkout.steps() == []


@pytest.mark.parametrize(
    ("cause", "word"),
    [
        ("STAND_IN_DIES", "venv"),
        *[
            (cause, word)
            for cause in ("STAND_IN_DIES", "STAND_IN_FAILS")
            for word in ("run.lock", "torch.lock", "--editable", "pip check")
        ],
    ],
)
def test_an_interrupted_set_up_begins_again_from_nothing(checkout: Checkout, cause: str, word: str) -> None:
    assert checkout.make(**{cause: word}).returncode != 0
    assert checkout.make().returncode == 0
    assert checkout.steps() == all_steps("run")


def test_what_development_takes_is_added(checkout: Checkout) -> None:
    checkout.make()
    checkout.make("setup")
    assert checkout.steps() == all_steps("dev")[1:]
    checkout.make("setup")
    checkout.make()
    assert checkout.steps() == []


def test_an_interrupted_addition_begins_again_from_nothing(checkout: Checkout) -> None:
    checkout.make()
    checkout.make("setup", STAND_IN_DIES="dev.lock")
    checkout.make("setup")
    assert checkout.steps() == all_steps("dev")


@pytest.mark.parametrize("lock", ["run", "dev", "torch"])
def test_another_lock(checkout: Checkout, lock: str) -> None:
    checkout.make("setup")
    with (checkout.folder / f"requirements/{lock}.lock").open("a") as file:
        file.write("more==1\n")
    checkout.make("setup")
    assert checkout.steps() == all_steps("dev")


def test_another_pyproject_takes_no_new_environment(checkout: Checkout) -> None:
    checkout.make("setup")
    with (checkout.folder / "pyproject.toml").open("a") as file:
        file.write("# more\n")
    checkout.make()
    assert checkout.steps() == all_steps("dev")[1:]


def test_a_moved_checkout(checkout: Checkout) -> None:
    checkout.make()
    checkout.folder = checkout.folder.rename(checkout.folder.parent / "elsewhere")
    checkout.make()
    assert checkout.steps() == all_steps("run")


def test_an_interpreter_that_has_gone(checkout: Checkout) -> None:
    checkout.make()
    python = checkout.folder / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/nowhere/python3.12")
    checkout.make()
    assert checkout.steps() == all_steps("run")


def test_another_interpreter_behind_the_same_link(checkout: Checkout) -> None:
    checkout.make()
    checkout.make(STAND_IN_VERSION="3.13")
    assert checkout.steps() == all_steps("run")


@pytest.mark.parametrize(
    ("python", "version", "said"),
    [
        ("python9", "3.12", "python9 is not found"),
        ("false", "3.12", "false does not run"),
        ("./stand-in", "3.10", "./stand-in is Python 3.10; name a Python 3.11, 3.12 or 3.13"),
    ],
)
def test_an_interpreter_that_cannot_be_used(checkout: Checkout, python: str, version: str, said: str) -> None:
    made = checkout.make("setup", PYTHON=python, STAND_IN_VERSION=version)
    assert made.returncode != 0
    assert f"error: {said}" in made.stderr
    assert "make setup PYTHON=python3.12" in made.stderr
    assert not (checkout.folder / ".venv").exists()


def test_locks_that_do_not_fit(checkout: Checkout) -> None:
    made = checkout.make(STAND_IN_FAILS="pip check")
    assert made.returncode != 0
    assert "make lock" in made.stderr


def calls(checkout: Checkout) -> list[str]:
    return (checkout.folder / "calls").read_text("utf-8").splitlines()


def test_options_for_pip_reach_every_installation(checkout: Checkout) -> None:
    checkout.make(PIP_EXTRA="--proxy https://proxy.example")
    assert sum(call.endswith("--proxy https://proxy.example") for call in calls(checkout)) == 3


def test_an_index_for_torch_is_for_torch_alone(checkout: Checkout) -> None:
    checkout.make(TORCH_INDEX="https://cpu.example/whl")
    [torch] = [call for call in calls(checkout) if "cpu.example" in call]
    assert torch.endswith("--index-url https://cpu.example/whl --requirement requirements/torch.lock")
    assert "extra-index" not in (ROOT / "tools/environment.sh").read_text("utf-8") + (ROOT / "Makefile").read_text(
        "utf-8"
    )


def test_without_one_pip_decides_where_torch_comes_from(checkout: Checkout) -> None:
    checkout.make()
    assert not any("index-url" in call for call in calls(checkout))


def test_the_newest_versions_take_torch_from_its_index_too(checkout: Checkout) -> None:
    command = ["make", "--dry-run", "test-latest", "TORCH_INDEX=https://cpu.example/whl"]
    told = subprocess.run(command, cwd=checkout.folder, capture_output=True, text=True, check=True).stdout
    lines = told.replace("\\\n", " ").splitlines()
    [torch] = [line for line in lines if "cpu.example" in line]
    assert "--no-deps" in torch
    assert lines.index(torch) < next(index for index, line in enumerate(lines) if "--editable" in line)


def test_it_says_what_is_coming(checkout: Checkout) -> None:
    said = checkout.make("setup", PIP_EXTRA="").stdout
    assert "Making .venv with Python 3.12" in said
    said = checkout.make("help").stdout
    assert "https://download.pytorch.org/whl/cpu" in said
    makefile = (ROOT / "Makefile").read_text("utf-8")
    hidden = {"installed", "installed-dev"}
    targets = {line.partition(":")[0] for line in makefile.splitlines() if line[:1].islower() and ":" in line}
    assert {line.split()[1] for line in said.splitlines() if line.startswith("make ")} == targets - hidden
