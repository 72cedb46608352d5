"""python -m tools.clients: other people's clients against the running system. ``make clients`` calls it.

Installs the clients that requirements/clients*.txt and tests/clients/node name, starts the system with the miniatures,
and runs tests/clients against it. Leaves neither the system nor the web server with the images behind.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from deployments.local.cluster import answers
from tools.environments import install
from tools.lock import FOLDER, ROOT

ENVIRONMENTS: Mapping[str, str] = {
    "clients": ".venv-clients",
    "clients-openai2": ".venv-clients-openai2",
}
"""The folder of each lock's environment. There are two because some clients need version 2 of OpenAI's."""

PYTHON_TESTS = ROOT / "tests" / "clients" / "python"
NODE_TESTS = ROOT / "tests" / "clients" / "node"
IMAGES = ROOT / "examples"
CONFIG = ROOT / "serve_config.local.yaml"

START_TIMEOUT_S = 300.0  # the system is ready in 20 s on a quiet machine
STOP_TIMEOUT_S = 30.0
POLL_S = 0.25

Environment = dict[str, str]


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 1 if a client's tests have failed."""
    options = _options(argv)
    pythons = [] if options.only == "node" else [_install(name) for name in ENVIRONMENTS]
    has_node = options.only != "python" and install_node()
    with _given(options.url) if options.url else serving() as variables:
        environment = {**os.environ, **variables}
        codes = [run_python(python, options.pytest, environment) for python in pythons]
        codes += [run_node(environment)] if has_node else []
    return int(any(codes))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.clients", description=__doc__)
    parser.add_argument("--url", help="ask the system that runs there instead of starting one")
    parser.add_argument("--only", choices=("python", "node"), help="ask by means of these clients alone")
    parser.add_argument("pytest", nargs="*", help="options for pytest, after --")
    return parser.parse_args(argv)


# The clients


def _install(name: str) -> Path:
    return install(FOLDER / f"{name}.txt", ROOT / ENVIRONMENTS[name])


def install_node() -> bool:
    """Install the JavaScript clients that tests/clients/node/package-lock.json names; whether there is a Node.js."""
    if not (shutil.which("node") and shutil.which("npm")):
        print("There is no node and npm here: the JavaScript clients are left out.", flush=True)
        return False
    _run(["npm", "ci", "--no-audit", "--no-fund"], cwd=NODE_TESTS)
    return True


def run_python(python: Path, options: Sequence[str], environment: Environment) -> int:
    """Run the tests of the clients that this interpreter finds."""
    print(f"\n{python.parent.parent.name}:", flush=True)
    command = [str(python), "-m", "pytest", "-q", "-c", str(PYTHON_TESTS / "pytest.ini")]
    return _run([*command, str(PYTHON_TESTS), *options], env=environment, check=False)


def run_node(environment: Environment) -> int:
    """Run the tests of the JavaScript clients."""
    print("\nnode:", flush=True)
    return _run(["npm", "test", "--silent"], NODE_TESTS, environment, check=False)


def _run(command: list[str], cwd: Path = ROOT, env: Environment | None = None, *, check: bool = True) -> int:
    return subprocess.run(command, cwd=cwd, env=env, check=check).returncode  # noqa: S603  # our own commands


# The system


@contextmanager
def _given(url: str) -> Iterator[Environment]:
    """A system that somebody else has started; it may not download from here, so there are no images to download."""
    yield {"GIGAROUTER_URL": url}


@contextmanager
def serving() -> Iterator[Environment]:
    """The system and a web server that it may download images from, until the end of the block.

    Yields:
        The variables by which the tests find both.
    """
    with tempfile.TemporaryDirectory() as scratch, serving_images() as images:
        config = Path(scratch) / "config.yaml"
        config.write_text(json.dumps(config_with_images(_port_of(images))), "utf-8")  # JSON is YAML
        with running_system(config, Path(scratch) / "log") as url:
            yield {"GIGAROUTER_URL": url, "GIGAROUTER_IMAGES_URL": images}


def config_with_images(port: int) -> dict[str, Any]:
    """What ``make serve`` runs, with downloads from this machine's ``port`` allowed."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text("utf-8"))
    router = next(one for one in config["applications"] if one["name"] == "router")
    router["args"] |= {"allowed_image_networks": ["127.0.0.1/32"], "image_ports": [port]}
    return config


@contextmanager
def running_system(config: Path, log: Path) -> Iterator[str]:
    """Start the system and wait until it is ready; stop it at the end of the block.

    Yields:
        Its address, ``http://127.0.0.1:PORT``.
    """
    port = _free_port()
    command = [sys.executable, "-m", "deployments.local", "--port", str(port), "--config", str(config)]
    with log.open("wb") as output:
        # A session of its own: a Ctrl-C for this program must not reach it before the tests have ended.
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)  # noqa: S603  # ours
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(STOP_TIMEOUT_S)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    print("Starting the system ...", flush=True)
    deadline = time.monotonic() + START_TIMEOUT_S
    while not answers(f"{url}/readyz"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{log.read_text('utf-8', 'replace')}\nerror: the system is not ready")
        time.sleep(POLL_S)


class _Images(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ARG002  # http.server's names
        return


@contextmanager
def serving_images() -> Iterator[str]:
    """A web server with the images of examples/, until the end of the block; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Images, directory=str(IMAGES)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
