"""How other people's clients are set up, and what becomes of the system that they ask."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import clients
from tools.lock import CLIENTS, FOLDER, split


def test_without_node_its_clients_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.clients.shutil.which", lambda _name: None)
    monkeypatch.setattr(clients, "_run", pytest.fail)
    assert clients.install_node() is False


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
