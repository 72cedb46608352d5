"""A folder with accounts, for the system on one machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from accounts.database import open_database
from accounts.directory import open_directory
from deployments.local import __main__ as starter
from deployments.local.account_folder import FILE, prepared, told
from deployments.local.serve_config import with_database
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


def test_the_router_gets_the_database_unless_it_has_one() -> None:
    router = {"name": "router", "import_path": "router.app:build"}
    assert with_database({"applications": [dict(router)]}, "sqlite:////a")["applications"][0]["args"] == {
        "database_url": "sqlite:////a"
    }
    own = {**router, "args": {"database_url": "environment"}}
    assert with_database({"applications": [own]}, "sqlite:////a")["applications"][0]["args"] == {
        "database_url": "environment"
    }


@pytest.mark.parametrize("stated", ["/data", "not/absolute", ""])
def test_where_it_is_by_default(stated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", stated)
    home = Path.home() / ".local" / "share"
    assert starter.default_folder() == (Path("/data") if stated == "/data" else home) / "gigarouter"
