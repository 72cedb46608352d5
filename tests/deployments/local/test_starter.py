"""What the starter prepares for the cluster and leaves behind: its environment, its directory, its first words."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.local import __main__ as starter
from deployments.local import cluster, processes


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


def test_what_the_user_has_set_stays_but_no_other_cluster_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "1", "RAY_DEDUP_LOGS": "1"}
    for token in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        left = environment(monkeypatch, **own, **{token: "mine"}, RAY_ADDRESS="10.0.0.1:6379")
        assert left == {**own, token: "mine"}


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
    assert not seen[0].exists()


def test_the_first_request_it_proposes_is_to_a_model() -> None:
    applications: list[Any] = [
        SimpleNamespace(name="router", route_prefix="/"),
        SimpleNamespace(name="blip-large", route_prefix=None),
        SimpleNamespace(name="kosmos-2", route_prefix=None),
    ]
    text = cluster._welcome(SimpleNamespace(applications=applications), "http://127.0.0.1:8123")
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
        server.bind((starter.HOST, 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection((starter.HOST, port)) as client:
            server.accept()[0].close()  # the side that closes first keeps the port in TIME_WAIT
            assert client.recv(1) == b""
        assert not starter._is_free(port)
    assert starter._is_free(port)


def test_a_port_in_use_is_refused_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(starter, "_fork", None)
    with socket.socket() as taken:
        taken.bind((starter.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert starter.main(["--port", str(port)]) == 1
    assert capsys.readouterr().err == f"error: port {port} on 127.0.0.1 is in use; take another one.\n"
