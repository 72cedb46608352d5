"""The locks are whole and fit pyproject.toml, and how they are made out of what uv says."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.lock import FOLDER, ROOT, locks, split

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
RUN, DEV, TORCH = (split((FOLDER / f"{name}.lock").read_text("utf-8")) for name in ("run", "dev", "torch"))


def fits(wanted: str, locked: dict[str, list[str]]) -> bool:
    requirement = Requirement(wanted)
    entries = locked.get(canonicalize_name(requirement.name), [])
    return bool(entries) and all(
        requirement.specifier.contains(entry.split()[0].partition("==")[2]) for entry in entries
    )


@pytest.mark.parametrize("wanted", [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]])
def test_what_runs_the_product_is_locked_in_its_range(wanted: str) -> None:
    """What builds it, too: the sources are prepared by what is installed."""
    assert fits(wanted, RUN | TORCH), "`make lock` writes the locks anew"


@pytest.mark.parametrize("wanted", PROJECT["project"]["optional-dependencies"]["dev"])
def test_what_development_takes_is_locked_in_its_range(wanted: str) -> None:
    assert fits(wanted, RUN | DEV), "`make lock` writes the locks anew"


def test_development_takes_every_extra() -> None:
    """In the same range: the tests try what an extra brings."""
    extras: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
    assert [wanted for extra in extras.values() for wanted in extra if wanted not in extras["dev"]] == []


def test_development_takes_no_other_versions() -> None:
    assert not RUN.keys() & DEV.keys()
    assert "\n-r run.lock\n" in (FOLDER / "dev.lock").read_text("utf-8")


def test_every_file_has_its_sum_but_those_of_torch() -> None:
    assert list(TORCH) == ["torch"]
    assert "torch" not in RUN | DEV
    assert [entry for entries in (RUN | DEV).values() for entry in entries if "--hash=sha256:" not in entry] == []


def test_no_lock_brings_cuda() -> None:
    assert [name for name in RUN | DEV if name.startswith(("nvidia-", "cuda-")) or name == "triton"] == []


def test_how_locks_are_made() -> None:
    sums = " \\\n    --hash=sha256:00\n"
    old = "a==1 ; python_full_version < '3.12'"
    run = "".join(f"{pin}{sums}" for pin in (old, "a==2", "cuda-x==3", "nvidia-y==4", "torch==5", "triton==6"))
    made = locks(run, f"{run}z==7{sums}")
    assert split(made["run.lock"]) == {"a": [f"{old}{sums}", f"a==2{sums}"]}
    assert split(made["dev.lock"]) == {"z": [f"z==7{sums}"]}
    assert split(made["torch.lock"]) == {"torch": ["torch==5\n"]}


def test_another_version_for_development_is_not_hidden() -> None:
    """It is in both locks then, which :func:`test_development_takes_no_other_versions` refuses."""
    sums = " \\\n    --hash=sha256:00\n"
    made = locks(f"a==1{sums}torch==5{sums}", f"a==2{sums}torch==5{sums}")
    assert split(made["dev.lock"]) == {"a": [f"a==2{sums}"]}
