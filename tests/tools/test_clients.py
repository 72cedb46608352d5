"""How other people's clients are set up, and what becomes of the system that they ask."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import clients
from tools.lock import CLIENTS, FOLDER, split


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands of a set-up in a folder of its own, which are noted and not run."""
    commands: list[list[str]] = []

    def run(command: list[str], *_args: Any) -> int:
        commands.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(exist_ok=True)
        return 0

    monkeypatch.setattr(clients, "_run", run)
    monkeypatch.setattr(clients, "ROOT", tmp_path)
    monkeypatch.setattr(clients, "FOLDER", tmp_path)
    (tmp_path / "clients.txt").write_text("a==1\n", "utf-8")
    return commands


def test_clients_are_installed_once(ran: list[list[str]], tmp_path: Path) -> None:
    folder = clients.install("clients")
    assert folder == tmp_path / ".venv-clients"
    assert [command[1:3] for command in ran] == [["-m", "venv"], ["-m", "pip"]]
    assert {"--require-hashes", "--no-deps", str(tmp_path / "clients.txt")} <= set(ran[1])
    clients.install("clients")
    assert len(ran) == 2


def test_another_lock_is_another_set_up(ran: list[list[str]], tmp_path: Path) -> None:
    clients.install("clients")
    (tmp_path / "clients.txt").write_text("a==2\n", "utf-8")
    clients.install("clients")
    assert len(ran) == 4


def test_a_set_up_that_failed_is_made_again(
    ran: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = clients._run

    def fail(command: list[str]) -> int:
        noted(command)
        if "pip" in command:
            raise OSError
        return 0

    monkeypatch.setattr(clients, "_run", fail)
    for _ in range(2):
        with pytest.raises(OSError):  # noqa: PT011  # it is the one above
            clients.install("clients")
    assert len(ran) == 4


def test_without_node_its_clients_are_left_out(monkeypatch: pytest.MonkeyPatch, ran: list[list[str]]) -> None:
    monkeypatch.setattr("tools.clients.shutil.which", lambda _name: None)
    assert clients.install_node() is False
    assert ran == []


@pytest.mark.parametrize("name", CLIENTS)
def test_the_locks_of_the_clients_have_what_is_wanted_and_the_sum_of_every_file(name: str) -> None:
    wanted = [line for line in (FOLDER / f"{name}.in").read_text("utf-8").splitlines() if not line.startswith("#")]
    locked = split((FOLDER / f"{name}.txt").read_text("utf-8"))
    for requirement in map(Requirement, wanted):
        (entry,) = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(entry.split()[0].partition("==")[2])
    assert [entry for entries in locked.values() for entry in entries if "--hash=sha256:" not in entry] == []
    assert not {"torch", "kestrel"} & locked.keys()


def test_the_system_is_that_of_make_serve_and_may_download_from_this_machine() -> None:
    config = clients.config_with_images(8123)
    usual = yaml.safe_load(clients.CONFIG.read_text("utf-8"))
    router = next(one for one in config["applications"] if one["name"] == "router")
    assert router["args"].pop("allowed_image_networks") == ["127.0.0.1/32"]
    assert router["args"].pop("image_ports") == [8123]
    assert config == usual


def test_the_web_server_has_the_images() -> None:
    with (
        clients.serving_images() as url,
        urllib.request.urlopen(f"{url}/circle-and-square.png", timeout=10) as answer,
    ):
        assert answer.read() == (clients.IMAGES / "circle-and-square.png").read_bytes()


def test_a_system_that_cannot_start_is_an_error_with_its_log(tmp_path: Path) -> None:
    with (
        pytest.raises(SystemExit, match=r"There is no config file(.|\n)*not ready"),
        clients.running_system(tmp_path / "nowhere.yaml", tmp_path / "log"),
    ):
        pytest.fail("there is no system")
