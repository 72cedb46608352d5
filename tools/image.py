"""python -m tools.image check: builds the image of the Dockerfile without Docker's engine, and tests what came out.

``make image-check`` calls it. Needs root on Linux and buildah. What it makes is in one folder (IMAGE_STORE), which is
not removed: a base image that was made there is used again. From the environment:

    IMAGE_BASE            the base image, by a name that buildah can reach. Without it, one is made of Debian's
                          packages, for which debootstrap is needed
    DEBIAN_MIRROR         where these packages come from
    TORCH_INDEX           the package index to take torch from, and nothing else
    IMAGE_BUILD_OPTIONS   further options for `buildah build`
    IMAGE_STORE           the folder

The tests (tests/k8s/test_built_image.py) get the folders of the image in the variables that this sets for them.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.lock import ROOT

STORE = Path("/var/tmp/gigarouter-image")  # noqa: S108  # not in the repository: it may be on a disk that overlays forbid
NAME = "localhost/gigarouter:check"
BASE = "localhost/debian-python:bookworm"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates")
"""What is taken of an image such as python:slim: an interpreter and pip."""

TESTS = "tests/k8s/test_built_image.py"


@dataclass(frozen=True, slots=True)
class Buildah:
    """buildah with images and containers of its own, apart from any other on the machine."""

    store: Path

    def __call__(self, *arguments: str) -> str:
        """Run it; what it prints on stdout."""
        return str(self.run(*arguments, stdout=subprocess.PIPE).stdout).strip()

    def run(self, *arguments: str, stdout: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run it in the repository, and show what it prints."""
        folders = ("--root", str(self.store / "images"), "--runroot", str(self.store / "run"))
        environment = {"STORAGE_DRIVER": "overlay", "BUILDAH_ISOLATION": "chroot", **os.environ}
        command = ["buildah", *folders, *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=stdout, text=True)  # noqa: S603

    @contextmanager
    def container(self, image: str) -> Iterator[str]:
        """A container of this image for a while."""
        name = self("from", "--pull-never" if image != "scratch" else "--pull", image)
        try:
            yield name
        finally:
            self("rm", name)


def missing() -> str | None:
    """Why no image can be built here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "root on Linux is needed"
    needed = ["buildah"] if os.environ.get("IMAGE_BASE") else ["buildah", "debootstrap"]
    absent = [one for one in needed if shutil.which(one) is None]
    return (
        f"{' and '.join(absent)} must be installed; Debian and Ubuntu have packages of these names" if absent else None
    )


def base(buildah: Buildah) -> str:
    """The name of the base image, which is made unless one is named or there."""
    named = os.environ.get("IMAGE_BASE")
    if named or buildah("images", "--quiet", "--filter", f"reference={BASE}"):
        return named or BASE
    tree = buildah.store / "debian"
    shutil.rmtree(tree, ignore_errors=True)
    mirror = os.environ.get("DEBIAN_MIRROR", MIRROR)
    included = f"--include={','.join(PACKAGES)}"
    subprocess.run(["debootstrap", "--variant=minbase", included, "bookworm", str(tree), mirror], check=True)  # noqa: S603, S607
    for one in ("dev", "var/cache/apt/archives", "var/lib/apt/lists", "var/log"):  # as images of Debian do
        shutil.rmtree(tree / one)
        (tree / one).mkdir()
    with buildah.container("scratch") as container:
        buildah("copy", "--quiet", container, str(tree), "/")
        buildah("commit", "--quiet", container, BASE)
    shutil.rmtree(tree)
    return BASE


def build(buildah: Buildah) -> None:
    """Build the Dockerfile as it is."""
    index = os.environ.get("TORCH_INDEX")
    arguments = [f"BASE={base(buildah)}", *([f"TORCH_INDEX={index}"] if index else [])]
    options = [part for one in arguments for part in ("--build-arg", one)]
    buildah.run("build", *options, *shlex.split(os.environ.get("IMAGE_BUILD_OPTIONS", "")), "--tag", NAME, ".")


def check(buildah: Buildah, options: Sequence[str]) -> int:
    """Test the image that is there; the exit code is that of the tests."""
    layers = buildah.store / "layers"
    shutil.rmtree(layers, ignore_errors=True)
    buildah("push", "--quiet", NAME, f"oci:{layers}:check")
    with buildah.container(NAME) as container:
        found = {"IMAGE_LAYERS": str(layers), "IMAGE_TREE": buildah("mount", container)}
        try:
            command = [sys.executable, "-m", "pytest", "-q", TESTS, *options]
            return subprocess.run(command, cwd=ROOT, env={**os.environ, **found}, check=False).returncode  # noqa: S603
        finally:
            buildah("umount", container)


def main(what: str, *options: str) -> int:
    """``check`` builds and tests, ``test`` tests what was built before."""
    reason = missing()
    if reason is not None:
        print(f"error: no image can be built here: {reason}", file=sys.stderr)
        return 1
    buildah = Buildah(Path(os.environ.get("IMAGE_STORE", STORE)))
    buildah.store.mkdir(parents=True, exist_ok=True)
    if what == "check":
        build(buildah)
    return check(buildah, options)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
