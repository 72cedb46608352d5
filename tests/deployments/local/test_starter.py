"""What the starter prepares for the cluster and leaves behind: its environment, its directory, its first words."""

from __future__ import annotations

import os
import re
import socket
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

from deployments.local import __main__ as starter
from deployments.local import cluster, processes
from deployments.local.loopback import HOST
from serve_args.cluster_environment import CLUSTER

ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
EVENT_LOOPS = ("RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP", "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD")


def environment(monkeypatch: pytest.MonkeyPatch, **before: str) -> dict[str, str]:
    """The variables that the starter leaves, of those in ``before`` and its own."""
    monkeypatch.setattr(starter, "os", SimpleNamespace(environ=before))
    starter._set_environment()
    return before


def test_rays_ports_need_a_token_that_is_new_at_each_start(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = environment(monkeypatch), environment(monkeypatch)
    assert one["RAY_AUTH_MODE"] == "token"
    assert re.fullmatch("[0-9a-f]{64}", one["RAY_AUTH_TOKEN"])
    assert one["RAY_AUTH_TOKEN"] != other["RAY_AUTH_TOKEN"]
    assert (one["RAY_USAGE_STATS_ENABLED"], one["RAY_DEDUP_LOGS"]) == ("0", "0")
    assert [one[name] for name in EVENT_LOOPS] == ["0", "0"]


def test_rays_ports_are_on_the_loopback_whatever_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in ({}, {ON_LOOPBACK: "1"}):
        assert environment(monkeypatch, **before)[ON_LOOPBACK] == "0"


def test_the_variables_of_a_cluster_start_no_haproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It listens on every interface, and docs/security.md has these variables set in a shell."""
    assert HAPROXY in CLUSTER
    assert HAPROXY not in environment(monkeypatch, **CLUSTER)


def test_what_the_user_has_set_stays_but_no_other_cluster_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "1", "RAY_DEDUP_LOGS": "1"}
    own |= dict.fromkeys(EVENT_LOOPS, "1")
    for token in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        left = environment(monkeypatch, **own, **{token: "mine"}, RAY_ADDRESS="10.0.0.1:6379")
        assert left == {**own, token: "mine", ON_LOOPBACK: "0"}


def test_the_directory_has_a_short_path_and_is_removed_whatever_happens() -> None:
    seen: list[Path] = []

    def work() -> None:
        with starter._temporary_directory() as directory:
            seen.append(directory)
            (directory / "log").write_text("x", encoding="utf-8")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert len(str(seen[0])) <= 20
    assert not seen[0].parent.exists()


def test_nobody_else_can_enter_the_directory_even_after_ray_has_opened_it_to_all() -> None:
    with starter._temporary_directory() as directory:
        directory.chmod(0o777)  # as Ray does with what it is given
        above = directory.parent.stat()
        assert (stat.S_IMODE(above.st_mode), above.st_uid) == (0o700, os.getuid())
        assert list(directory.parent.iterdir()) == [directory]
        assert list(directory.iterdir()) == []


def test_the_first_request_it_proposes_is_to_a_model() -> None:
    applications: list[Any] = [
        SimpleNamespace(name="router", import_path="router.app:build", args={}),
        SimpleNamespace(name="blip-large", import_path="deployments.app:build", args=None),
        SimpleNamespace(name="kosmos-2", import_path="deployments.app:build", args=None),
    ]
    text = cluster._welcome(SimpleNamespace(applications=applications), "http://127.0.0.1:8123")
    assert "API_KEY" not in text
    applications[0].args = {"database_url": "sqlite:////a"}
    with_key = cluster._welcome(SimpleNamespace(applications=applications), "http://127.0.0.1:8123")
    assert '-H "authorization: Bearer $GIGAROUTER_API_KEY" -d @-' in with_key
    assert "gigarouter keys create" in with_key
    assert '{"model": "blip-large"' in text
    assert "ready: http://127.0.0.1:8123/v1 (" in text
    assert "curl -s http://127.0.0.1:8123/v1/chat/completions " in text


@pytest.mark.parametrize(("status", "code"), [(0, 0), (3 << 8, 3), (9, 1), (15, 1)])
def test_the_exit_code_is_that_of_the_child_and_1_if_a_signal_ended_it(
    status: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = iter([(7, 5 << 8), (8, 0), (42, status)])  # adopted processes end meanwhile
    monkeypatch.setattr("os.wait", lambda: next(ended))
    assert processes.wait_for(42) == code


def test_a_port_is_free_again_although_a_connection_to_it_has_just_been_closed() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        server.bind((HOST, 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection((HOST, port)) as client:
            server.accept()[0].close()  # the side that closes first keeps the port in TIME_WAIT
            assert client.recv(1) == b""
        assert not starter._is_free(port)
    assert starter._is_free(port)


def test_a_port_in_use_is_refused_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(starter, "_fork", None)
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert starter.main(["--port", str(port)]) == 1
    assert capsys.readouterr().err == f"error: port {port} on 127.0.0.1 is in use; take another one.\n"


BLIP = {"checkpoint": "miniatures/blip-large"}


def test_without_a_token_nothing_is_started_unless_the_config_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before Ray starts; the applications themselves refuse as well, on any cluster."""
    forked = Mock(side_effect=RuntimeError("forked"))
    monkeypatch.setattr(starter, "_fork", forked)
    monkeypatch.setattr(starter, "_is_free", lambda _: True)
    monkeypatch.setattr(starter, "_set_environment", lambda: None)
    applications: list[dict[str, object]] = [
        {"name": "router", "import_path": "router.app:build", "args": {"allow_unauthenticated_cluster": True}},
        {"name": "blip-large", "import_path": "deployments.app:build", "args": BLIP, "route_prefix": None},
    ]
    config = tmp_path / "config.yaml"

    def start() -> int:
        config.write_text(yaml.safe_dump({"applications": applications}), "utf-8")
        return starter.main(["--config", str(config)])

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert start() == 1
    said = capsys.readouterr().err
    assert said.startswith("error: RAY_AUTH_MODE is 'disabled', so every user of this machine could run code as you")
    assert said.endswith("allow_unauthenticated_cluster: true in the args of: blip-large.\n")
    for mode in ("token", "TOKEN"):
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
        with pytest.raises(RuntimeError, match="forked"):
            start()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    applications[1]["args"] = {**BLIP, "allow_unauthenticated_cluster": True}
    with pytest.raises(RuntimeError, match="forked"):
        start()
