"""python -m tools.k8s check|sync: the checks of k8s/, or the files in it that are made of others.

``check`` (``make k8s-check``) runs tests/k8s in .venv-k8s, which has kubectl's kustomize, Helm, hadolint and the
schemas of Kubernetes. With ``sync`` (``make k8s-sync``), the copies of the Serve config and the variables of the
transport are written anew; the tests compare them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from deployments.environment import variables
from tools.environments import install
from tools.lock import FOLDER, ROOT

K8S = ROOT / "k8s"


def made() -> Mapping[Path, str]:
    """What the files that are made of others must hold."""
    source, laptop = ROOT / "serve_config.yaml", K8S / "overlays/kind/serve_config.yaml"
    return {
        K8S / "base/serve_config.yaml": source.read_text("utf-8"),
        K8S / "base/transport.env": _lines(source),
        K8S / "overlays/kind/transport.env": _lines(laptop),
    }


def _lines(config: Path) -> str:
    return "".join(f"{name}={value}\n" for name, value in variables(config).items())


def main(what: str, *options: str) -> int:
    """Do it; the exit code is that of the tests."""
    if what == "sync":
        for path, text in made().items():
            path.write_text(text, "utf-8")
        return 0
    python = install(FOLDER / "k8s.txt", ROOT / ".venv-k8s", over=True)
    command = [str(python), "-m", "pytest", "-q", "-m", "not ray", "tests/k8s", *options]
    return subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603  # our tests


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
