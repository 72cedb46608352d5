"""python -m tools.lock UV: writes requirements/*.lock anew, with the newest versions that pyproject.toml allows.

``make lock`` calls it, with uv in an environment of its own. Decides what each lock holds;
tools/environment.sh installs them. torch is the only package with a rule of its own. With ``clients`` after ``UV``, it
writes the locks of other people's clients instead (``make lock-clients``), which tools/clients.py installs, and with
``bench`` or ``k8s`` that of what the benchmarks or the checks of the manifests take beyond run.lock
(``make lock-bench``, ``make lock-k8s``), and with ``sbom`` that of what lists the packages of the image
(``make lock-sbom``).
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"

CLIENTS = ("clients", "clients-openai2")

_BEYOND = """# Written by `make lock-{name}`; docs/development.md says how it is used.
#
# What `make {goal}` takes beyond run.lock, for Python 3.11 on Linux.
"""

_SBOM = """# Written by `make lock-sbom`; docs/development.md says how it is used.
#
# What lists the packages of the image while it is built, for Python 3.11 to 3.13.
"""

_NAME = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)
_CUDA = re.compile(r"(?:nvidia|cuda)-|triton$")

_GENERATED = "# Written by `make lock`; docs/development.md says how it is used.\n"
_RUN = f"""{_GENERATED}#
# What running the product takes, every package at one version for Python 3.11 to 3.13 on Linux and macOS, and each with
# the sums of its files. torch is not here but in torch.lock, which says why.
"""
_DEV = f"""{_GENERATED}#
# What tests and checks take beyond run.lock.

-r run.lock
"""
_TORCH = f"""{_GENERATED}#
# Without sums of its files: which build of torch is right depends on the machine, and pip may take the one for CPUs
# (2.13.0+cpu) from another place. What only its CUDA build needs (nvidia-*, cuda-*, triton) is in no lock, since a lock
# would have machines without a GPU fetch it too; torch's own metadata names these packages, nearly all of them exactly.
"""


def split(compiled: str) -> dict[str, list[str]]:
    """The entries of a requirements file as uv writes it, by package: one entry for each range of Pythons."""
    found: dict[str, list[str]] = {}
    starts = [match.start() for match in _NAME.finditer(compiled)]
    for start, end in zip(starts, [*starts[1:], len(compiled)], strict=True):
        entry = compiled[start:end].rstrip() + "\n"
        found.setdefault(entry.partition("==")[0], []).append(entry)
    return found


def locks(run: str, dev: str) -> dict[str, str]:
    """What each lock holds, by the name of its file.

    Args:
        run, dev: What uv made of the dependencies, without and with those for development.
    """
    of_run, of_dev = ({name: one for name, one in split(text).items() if not _CUDA.match(name)} for text in (run, dev))
    torch = "".join(entry.splitlines()[0].removesuffix(" \\") + "\n" for entry in of_run.pop("torch"))
    of_dev.pop("torch")
    beyond = {name: entries for name, entries in of_dev.items() if of_run.get(name) != entries}
    return {
        "run.lock": f"{_RUN}\n{_joined(of_run)}",
        "dev.lock": f"{_DEV}\n{_joined(beyond)}",
        "torch.lock": f"{_TORCH}\n{torch}",
    }


def _joined(packages: dict[str, list[str]]) -> str:
    return "".join(entry for entries in packages.values() for entry in entries)


def compiled(uv: str, *options: str) -> str:
    """What uv makes of pyproject.toml for every Python and system at once."""
    command = [
        uv, "pip", "compile", "pyproject.toml", *options, "--universal", "--python-version", "3.11",
        "--generate-hashes", "--no-annotate", "--no-header", "--no-progress", "--quiet",
    ]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603  our uv


def lock_clients(uv: str) -> None:
    """Write the locks of other people's clients, for CI's Python and system: clients are no part of the product."""
    for name in CLIENTS:
        command = [
            uv, "pip", "compile", f"{name}.in", "--override", "clients-without.in", "--output-file", f"{name}.txt",
            "--python-version", "3.11", "--python-platform", "x86_64-unknown-linux-gnu", "--upgrade",
            "--generate-hashes", "--no-annotate", "--custom-compile-command", "make lock-clients", "--quiet",
        ]  # fmt: skip
        subprocess.run(command, cwd=FOLDER, check=True)  # noqa: S603  # our uv


def lock_bench(uv: str) -> None:
    """Write the lock of the benchmarks."""
    _lock_beyond(uv, "bench", "bench")


def lock_k8s(uv: str) -> None:
    """Write the lock of what builds and checks the manifests."""
    _lock_beyond(uv, "k8s", "k8s-check")


def lock_sbom(uv: str) -> None:
    """Write the lock of what lists the packages of the image, for every Python that the image may have."""
    command = [
        uv, "pip", "compile", "sbom.in", "--universal", "--python-version", "3.11",
        "--generate-hashes", "--no-annotate", "--no-header", "--quiet",
    ]  # fmt: skip
    made = subprocess.run(command, cwd=FOLDER, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603
    (FOLDER / "sbom.txt").write_text(f"{_SBOM}\n{made}", "utf-8")


def _lock_beyond(uv: str, name: str, goal: str) -> None:
    """Write the lock of an environment that sees what run.lock installs, for CI's Python and system."""
    command = [
        uv, "pip", "compile", f"{name}.in", "--constraint", "run.lock",
        "--python-version", "3.11", "--python-platform", "x86_64-unknown-linux-gnu",
        "--generate-hashes", "--no-annotate", "--no-header", "--quiet",
    ]  # fmt: skip
    made = split(subprocess.run(command, cwd=FOLDER, check=True, stdout=subprocess.PIPE, text=True).stdout)  # noqa: S603
    known = split((FOLDER / "run.lock").read_text("utf-8"))
    beyond = {name: entries for name, entries in made.items() if name not in known}
    (FOLDER / f"{name}.txt").write_text(f"{_BEYOND.format(name=name, goal=goal)}\n{_joined(beyond)}", "utf-8")


def main(uv: str) -> None:
    """Write all locks of the product. The one for development comes first, and the other one takes its versions."""
    dev = compiled(uv, "--extra", "dev")
    with TemporaryDirectory() as scratch:
        versions = Path(scratch) / "versions"
        versions.write_text(dev, "utf-8")
        run = compiled(uv, "--constraint", str(versions))
    for name, text in locks(run, dev).items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    others = {"clients": lock_clients, "bench": lock_bench, "k8s": lock_k8s, "sbom": lock_sbom}
    others.get("".join(sys.argv[2:]), main)(sys.argv[1])
