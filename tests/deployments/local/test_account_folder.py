"""A folder with accounts, for the system on one machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from accounts.database import open_database
from accounts.directory import open_directory
from deployments.local import __main__ as starter
from deployments.local.account_folder import FILE, prepared, told
from deployments.local.serve_config import refuse_own_database, with_database
from vlm.errors import ConfigError


def test_the_first_start_makes_a_key_and_later_ones_do_not(tmp_path: Path) -> None:
    url, secret = prepared(tmp_path / "new")
    assert secret is not None
    assert secret in told(url, secret)
    database = open_database(url)
    directory = open_directory(database)
    key = directory.find(directory.digest(secret))
    database.close()
    assert key is not None
    assert key.spec.scopes == {"admin"}
    assert prepared(tmp_path / "new") == (url, None)
    assert "gr-" not in told(url, None)


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    prepared(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0
    assert (tmp_path / "new" / FILE).stat().st_mode & 0o077 == 0


def test_what_is_no_database_is_refused_with_words(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("not a database, and longer than the head of one " * 10)
    with pytest.raises(ConfigError, match=r"The accounts in .* cannot be used: .* not a database of SQLite"):
        prepared(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be used"):
        prepared(tmp_path / "file")


@pytest.mark.parametrize("args", [{}, {"args": None}, {"args": {"free_credit": "1"}}])
def test_the_router_gets_the_database(args: dict[str, Any]) -> None:
    router = {"name": "router", "import_path": "router.app:build", **args}
    refuse_own_database({"applications": [router]})
    told = with_database({"applications": [router]}, "sqlite:////a")["applications"][0]["args"]
    assert told == {**(args.get("args") or {}), "database_url": "sqlite:////a"}


@pytest.mark.parametrize(("name", "value"), [("database_url", "environment"), ("allow_without_keys", True)])
def test_a_config_that_says_itself_where_accounts_are_is_refused_before_a_folder_is_made(
    name: str, value: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    router = {"name": "router", "import_path": "router.app:build", "args": {name: value}}
    config.write_text(json.dumps({"applications": [router]}), "utf-8")
    assert starter.main(["--config", str(config), "--accounts", str(tmp_path / "new")]) == starter.BAD_INPUT
    assert f"has {name} already" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_url_that_the_environment_lacks_is_said_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GIGAROUTER_DATABASE_URL", raising=False)
    config = tmp_path / "config.yaml"
    router = {"name": "router", "import_path": "router.app:build", "args": {"database_url": "environment"}}
    config.write_text(json.dumps({"applications": [router]}), "utf-8")
    assert starter.main(["--config", str(config)]) == starter.BAD_INPUT
    wanted = "error: GIGAROUTER_DATABASE_URL is not set, from which the config takes its database_url.\n"
    assert capsys.readouterr().err == wanted


@pytest.mark.parametrize("stated", ["/data", "not/absolute", ""])
def test_where_it_is_by_default(stated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", stated)
    home = Path.home() / ".local" / "share"
    assert starter.default_folder() == (Path("/data") if stated == "/data" else home) / "gigarouter"
