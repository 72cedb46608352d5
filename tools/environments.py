"""Environments of their own for what `.venv` cannot or need not have, each made of one lock in requirements/."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

OPTIONS = ["--disable-pip-version-check", "install", "--quiet", "--require-hashes", "--no-deps", "--no-compile"]


def install(lock: Path, folder: Path, *, over: bool = False) -> Path:
    """Bring the environment in ``folder`` to the versions of ``lock``; its interpreter.

    ``made-of`` is removed first and written last, as in tools/environment.sh: without it, or with another one, the
    environment is made again from scratch.

    Args:
        over: Whether it also sees the packages of the environment that this runs in, behind its own.
    """
    made_of = folder / "made-of"
    below = sysconfig.get_path("purelib") if over else ""
    wanted = f"{sys.version_info[:2]} {folder} {hashlib.sha256(lock.read_bytes()).hexdigest()} {below}\n"
    if not made_of.exists() or made_of.read_text("utf-8") != wanted:
        print(f"Making {folder.name} from requirements/{lock.name} ...", flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        more = shlex.split(os.environ.get("PIP_EXTRA", ""))
        _run([str(folder / "bin/python"), "-m", "pip", *OPTIONS, "--requirement", str(lock), *more])
        if over:
            _packages_of(folder).joinpath("below.pth").write_text(f"{below}\n", "utf-8")
        made_of.write_text(wanted, "utf-8")
    return folder / "bin/python"


def _packages_of(folder: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)  # noqa: S603  # our own commands
