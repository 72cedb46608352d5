"""compose.yaml: what its service runs starts the system on this machine, and its settings are safe."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deployments.local.processes import descendants
from tests.deployments.client import Question
from tests.deployments.system import free_port
from tests.k8s.objects import K8S, ROOT
from tests.router.test_haproxy import free_ports

SERVICE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]["gigarouter"]
BAKED = "/opt/gigarouter"
START_S = 300
"""Seconds for the start of everything on a busy machine."""

HAPROXY_FILES = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "state",
}
"""Where this HAProxy's files are to be, beside another's on this machine; a container has a /tmp of its own."""


def test_no_secret_stands_there_and_only_the_api_is_published() -> None:
    environment = SERVICE["environment"]
    assert environment["RAY_AUTH_MODE"] == "token"
    assert re.fullmatch(r"\$\{RAY_AUTH_TOKEN:\?[^}]+\}", environment["RAY_AUTH_TOKEN"])
    assert SERVICE["ports"] == ["127.0.0.1:${PORT:-8000}:8000"]


def test_it_has_no_rights_and_as_much_memory_as_it_may() -> None:
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in SERVICE
    assert {"mem_limit", "shm_size", "healthcheck", "restart"} <= SERVICE.keys()


def test_it_is_the_image_of_the_manifests() -> None:
    overlay = yaml.safe_load((K8S / "overlays/kind/kustomization.yaml").read_text("utf-8"))
    (image,) = overlay["images"]
    assert SERVICE["image"] == f"${{GIGAROUTER_IMAGE:-{image['name']}:{image['newTag']}}}"


def test_it_stops_when_its_requests_have_ended() -> None:
    assert SERVICE["stop_signal"] == "SIGINT"
    assert SERVICE["stop_grace_period"] == "150s"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The service's command with its variables, its files where the image has them from, and a port of its own."""
    with tempfile.TemporaryDirectory(prefix="gr-", dir="/tmp") as name:
        folder, port = Path(name), free_port()
        config = (K8S / "overlays/kind/serve_config.yaml").read_text("utf-8")
        config = config.replace(BAKED, str(ROOT)).replace("port: 8000", f"port: {port}")
        (folder / SERVICE["command"][-1]).write_text(config, "utf-8")
        with (folder / "log").open("w") as log:
            running = subprocess.Popen(
                [str(Path(sys.executable).parent / SERVICE["command"][0]), *SERVICE["command"][1:]],
                cwd=folder, env=environment(folder), stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", running, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            end(running)


def environment(folder: Path) -> dict[str, str]:
    """The service's variables, and those that keep this system apart from others on this machine."""
    lines = (ROOT / SERVICE["env_file"]).read_text("utf-8").splitlines()
    transport = dict(line.split("=", 1) for line in lines)
    own = {**SERVICE["environment"], "RAY_AUTH_TOKEN": "0" * 64}
    files = {variable: str(folder / name) for variable, name in HAPROXY_FILES.items()}
    apart = {"PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(folder), "RAY_raylet_start_wait_time_s": "120"}
    return {**os.environ, **transport, **own, **files, **free_ports(), **apart}


def wait_until_ready(url: str, running: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert running.poll() is None, log.read_text(errors="replace")[-4000:]
        try:
            if httpx.get(f"{url}/readyz", timeout=10).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(1)
    raise AssertionError(log.read_text(errors="replace")[-4000:])


def end(running: subprocess.Popen[bytes]) -> None:
    """As `docker compose down` does, and then whatever is left."""
    below = descendants(running.pid)
    running.send_signal(getattr(signal, SERVICE["stop_signal"]))
    try:
        running.wait(60)
    finally:
        for process in (running.pid, *below):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.mark.ray
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="HAProxy comes with Ray on Linux alone")
def test_its_command_starts_the_system(url: str) -> None:
    answer = httpx.post(
        f"{url}/v1/chat/completions", json=Question("moondream-2", "How many shapes?").body(), timeout=60
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "two"
    names = {one["id"] for one in httpx.get(f"{url}/v1/models", timeout=60).json()["data"]}
    assert names == {"blip-large", "florence-2-base", "kosmos-2", "moondream-2"}
