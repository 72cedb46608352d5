"""python -m tools.k8s check|sync: the checks of k8s/, or the files there and in compose/ that are made of others.

``check`` (``make k8s-check``) runs tests/k8s in .venv-k8s, which has kubectl's kustomize, Helm, hadolint and the
schemas of Kubernetes. With ``sync`` (``make k8s-sync``), the copies of the Serve config and the variables of the
transport are written anew; the tests compare them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from deployments.environment import variables
from tools.environments import install
from tools.lock import FOLDER, ROOT

K8S = ROOT / "k8s"
COMPOSE = ROOT / "compose"

WITHOUT_ACCOUNTS = re.compile(r"(      #.*\n)*      allow_without_keys: true\n")
WITH_ACCOUNTS = """\
      database_url: environment # compose.yaml has both URLs (docs/accounts.md)
      redis_url: environment
      outbox_folder: /var/lib/gigarouter/outbox
      prices: { blip-large: "0.094", florence-2-base: "0.094", kosmos-2: "0.626", moondream-2: "0.626" }
"""
FIRST_LINES = re.compile(r"\A(#.*\n)+")
OF_COMPOSE = """\
# The miniatures of compose.yaml, with accounts. Made of k8s/overlays/kind/serve_config.yaml by `make k8s-sync`.
"""


def made() -> Mapping[Path, str]:
    """What the files that are made of others must hold."""
    source, laptop = ROOT / "serve_config.yaml", K8S / "overlays/kind/serve_config.yaml"
    composed = with_accounts(laptop.read_text("utf-8"))
    return {
        K8S / "base/serve_config.yaml": source.read_text("utf-8"),
        K8S / "base/transport.env": _lines(source),
        K8S / "overlays/kind/transport.env": _lines(laptop),
        COMPOSE / "serve_config.yaml": composed,
        COMPOSE / "transport.env": _lines_of(composed),
    }


def with_accounts(text: str) -> str:
    """A Serve config that lets everybody in, as one that has accounts; all else stays, comments included."""
    changed, count = WITHOUT_ACCOUNTS.subn(WITH_ACCOUNTS, text)
    if count != 1:
        raise ValueError("the config must say allow_without_keys: true once")
    return FIRST_LINES.sub(OF_COMPOSE, changed)


def _lines(config: Path) -> str:
    return "".join(f"{name}={value}\n" for name, value in variables(config).items())


def _lines_of(text: str) -> str:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "serve_config.yaml"
        path.write_text(text, "utf-8")
        return _lines(path)


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
