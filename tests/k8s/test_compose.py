"""compose.yaml: what its services run starts on this machine, and their settings are safe."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
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
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from deployments.check import check
from deployments.environment import variables
from deployments.local.processes import descendants
from deployments.local.serve_config import without_accounts
from tests.deployments.client import Question
from tests.deployments.system import free_port
from tests.k8s.accounts_rules import MIGRATE, NEEDED
from tests.k8s.objects import K8S, ROOT
from tests.router.test_haproxy import free_ports
from tools.k8s import made

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVICE = SERVICES["gigarouter"]
BAKED = "/opt/gigarouter"
REQUIRED = re.compile(r"\$\{[A-Z_]+:\?run compose/secrets\.sh\}")
OPTIONAL = re.compile(r"\$\{GIGAROUTER_BOOTSTRAP_KEY:-\}")
SECRET = re.compile(r"PASSWORD|TOKEN|_KEY|PEPPER|_URL")
FILES = "/run/secrets/"
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


def test_only_the_api_is_published() -> None:
    assert SERVICE["environment"]["RAY_AUTH_MODE"] == "token"
    assert SERVICE["ports"] == ["127.0.0.1:${PORT:-8000}:8000"]
    assert [name for name, one in SERVICES.items() if "ports" in one] == ["gigarouter"]
    assert COMPOSE["networks"]["accounts"] == {"internal": True}
    assert all(one["networks"] == ["accounts"] for name, one in SERVICES.items() if name != "gigarouter")


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_stands_there(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if SECRET.search(variable):
            assert REQUIRED.search(value) or OPTIONAL.fullmatch(value) or value.startswith(FILES), variable


def test_every_secret_is_one_that_the_script_makes(tmp_path: Path) -> None:
    made = secrets_of(tmp_path)
    wanted = set(re.findall(r"\$\{([A-Z_]+):[?-](?:run|\})", (ROOT / "compose.yaml").read_text("utf-8")))
    files = {one["environment"] for one in COMPOSE["secrets"].values()}
    assert wanted | files == made.keys()
    assert re.fullmatch("gr-[A-Za-z0-9_-]{43}", made.pop("GIGAROUTER_BOOTSTRAP_KEY"))
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in made.values()), "they stand in URLs as they are"
    assert len(set(made.values())) == len(made)


def test_the_script_leaves_secrets_that_are_there_and_shows_them_to_nobody_else(tmp_path: Path) -> None:
    first = secrets_of(tmp_path)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    (tmp_path / ".env").write_text("REDIS_PASSWORD=mine\n", "utf-8")
    second = secrets_of(tmp_path)
    assert second["REDIS_PASSWORD"] == "mine"
    assert second["DATABASE_PASSWORD"] != first["DATABASE_PASSWORD"]
    assert "/.env" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def secrets_of(folder: Path) -> dict[str, str]:
    """What compose/secrets.sh writes, where its folder is below ``folder``."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make secrets with")
    script = folder / "compose" / "secrets.sh"
    script.parent.mkdir(exist_ok=True)
    shutil.copy(ROOT / "compose/secrets.sh", script)
    subprocess.run([str(script)], check=True)
    return dict(line.split("=", 1) for line in (folder / ".env").read_text("utf-8").splitlines())


@pytest.mark.parametrize("name", SERVICES)
def test_it_has_no_rights_and_as_much_memory_as_it_may(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert {"mem_limit", "restart", "logging"} <= service.keys()
    assert "healthcheck" in service or name == "migrate"
    assert re.fullmatch(r"(\$\{GIGAROUTER_IMAGE:-)?[a-z/]+:\d+\.[\w.-]+\}?", service["image"]), "pinned"


def test_it_is_the_image_of_the_manifests() -> None:
    overlay = yaml.safe_load((K8S / "overlays/kind/kustomization.yaml").read_text("utf-8"))
    (image,) = overlay["images"]
    for name in ("gigarouter", "migrate"):
        assert SERVICES[name]["image"] == f"${{GIGAROUTER_IMAGE:-{image['name']}:{image['newTag']}}}"


def test_the_tables_are_made_before_the_router_starts() -> None:
    assert SERVICES["migrate"]["command"] == MIGRATE
    assert SERVICES["migrate"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert SERVICE["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_its_config_is_the_laptops_with_accounts() -> None:
    config = yaml.safe_load((ROOT / COMPOSE["configs"]["serve"]["file"]).read_text("utf-8"))
    laptops = yaml.safe_load((K8S / "overlays/kind/serve_config.yaml").read_text("utf-8"))
    assert check(config, folders=False) == []
    args = config["applications"][0]["args"]
    production = yaml.safe_load((ROOT / "serve_config.yaml").read_text("utf-8"))["applications"][0]["args"]
    assert args.pop("prices") == production["prices"]
    assert without_accounts(config) == laptops
    assert SERVICE["configs"] == [{"source": "serve", "target": f"{BAKED}/{SERVICE['command'][-1]}"}]
    for setting, variable in NEEDED.items():
        assert args[setting] == "environment"
        assert variable in SERVICE["environment"]


def test_what_is_not_yet_in_the_database_outlives_the_container() -> None:
    config = yaml.safe_load((ROOT / COMPOSE["configs"]["serve"]["file"]).read_text("utf-8"))
    volume, _, folder = SERVICE["volumes"][0].partition(":")
    assert volume in COMPOSE["volumes"]
    assert Path(config["applications"][0]["args"]["outbox_folder"]).is_relative_to(folder)
    assert f"chown ray:ray /models {folder}" in (ROOT / "Dockerfile").read_text("utf-8")


def test_what_is_made_of_other_files_is_as_new_as_they_are() -> None:
    assert [path for path, text in made().items() if path.read_text("utf-8") != text] == []


def test_its_redis_asks_for_the_password_that_is_in_the_file(tmp_path: Path) -> None:
    server = shutil.which("valkey-server") or shutil.which("redis-server")
    if server is None:
        pytest.skip("there is no valkey-server or redis-server")
    import redis

    (tmp_path / "redis-password").write_text("a-password", "utf-8")
    (command,) = SERVICES["redis"]["command"]
    port = free_port()
    command = command.replace(FILES, f"{tmp_path}/").replace(
        "valkey-server -", f"{server} - --port {port} --bind 127.0.0.1"
    )
    running = subprocess.Popen(
        [*SERVICES["redis"]["entrypoint"], command], cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        with redis.Redis(port=port, password="a-password", retry=Retry(ConstantBackoff(0.1), 100)) as known:
            assert known.ping()
            assert known.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        with redis.Redis(port=port) as unknown, pytest.raises(redis.AuthenticationError):
            unknown.ping()
        assert "a-password" not in Path(f"/proc/{running.pid}/cmdline").read_text()
    finally:
        os.killpg(running.pid, signal.SIGKILL)  # the shell and, behind its pipe, the server
        running.wait()


def test_it_stops_when_its_requests_have_ended() -> None:
    assert SERVICE["stop_signal"] == "SIGINT"
    assert SERVICE["stop_grace_period"] == "150s"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The service's command with its variables, its files where the image has them from, and a port of its own.

    Without a database, and so without keys: the rest of the config is the same.
    """
    with tempfile.TemporaryDirectory(prefix="gr-", dir="/tmp") as name:
        folder, port = Path(name), free_port()
        config = yaml.safe_dump(
            without_accounts(yaml.safe_load((ROOT / "compose/serve_config.yaml").read_text("utf-8")))
        )
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
    transport = variables(folder / SERVICE["command"][-1])
    own = {name: value for name, value in SERVICE["environment"].items() if name.startswith("RAY_")}
    own["RAY_AUTH_TOKEN"] = "0" * 64
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
    """As `docker compose down` does, with its patience, and then whatever is left."""
    below = descendants(running.pid)
    running.send_signal(getattr(signal, SERVICE["stop_signal"]))
    try:
        running.wait(float(SERVICE["stop_grace_period"].removesuffix("s")))
    finally:
        for process in (running.pid, *below):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        running.wait()  # otherwise another test is blamed for a process that was not waited for


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
