"""The commands about accounts, both ways: with a key over HTTP, and on the database itself."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from accounts.database import open_database
from accounts.directory import open_directory
from accounts.keys import looks_like_key, new_secret
from gigarouter.__main__ import main
from tests.listening import listening
from tests.router.accounts.books import World
from tests.router.accounts.books import world as a_world
from tests.router.accounts.test_money_routes import charged

Json = dict[str, Any]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a database without tables."""
    return f"sqlite:///{tmp_path / 'accounts.db'}"


@pytest.fixture
def world(url: str) -> Iterator[World]:
    assert main(["accounts", "migrate", "--database", url]) == 0
    database = open_database(url)
    yield a_world(database, open_directory(database, free_credit=5_000_000_000))
    database.close()


@pytest.fixture(params=["http", "database"])
def place(
    request: pytest.FixtureRequest, world: World, url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """What is added to a command line so that it works on the world."""
    if request.param == "database":
        yield ["--database", url]
        return
    with listening(world.app(world.keyring())) as address:
        monkeypatch.setenv("GIGAROUTER_API_KEY", world.admin)
        yield ["--url", address]


Run = Callable[..., Any]


@pytest.fixture
def run(place: list[str], capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must work, and returns the JSON that it prints."""

    def running(*arguments: str) -> Any:
        capsys.readouterr()
        status = main([*arguments, *place, "--json"])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return json.loads(printed.out)

    return running


@pytest.fixture
def text(place: list[str], capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command, and returns its exit status and what it prints on both outputs."""

    def running(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([*arguments, *place])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return running


def test_the_life_of_a_key(run: Run, text: Run, world: World) -> None:
    account = world.account.id
    made = run("keys", "create", "--account", account, "--name", "gate", "--model", "a", "--model", "b", "--task",
               "caption", "--limit", "requests=60", "--limit", "a:images=6", "--budget", "day=1.5", "--budget",
               "total=9", "--expires", "2099-12-31", "--origin", "https://app.example.com")  # fmt: skip
    key = made["id"]
    assert looks_like_key(made.pop("secret"))
    assert run("keys", "show", key) == made
    assert (made["models"], made["tasks"], made["scopes"]) == (["a", "b"], ["caption"], ["inference"])
    assert (made["limits"]["*"]["requests"], made["limits"]["a"]["images"]) == (60, 6)
    assert made["budgets"] == {"day": "1.5", "total": "9"}
    assert made["expires_at"] == 4_102_358_400
    listed = run("keys", "list", "--account", account)
    assert [one["id"] for one in listed] == [key]
    changed = run("keys", "update", key, "--name", "door", "--model", "none", "--limit", "none", "--budget", "none",
                  "--expires", "none", "--scope", "monitor")  # fmt: skip
    assert (changed["name"], changed["models"], changed["tasks"]) == ("door", None, ["caption"])
    assert (changed["limits"], changed["budgets"], changed["expires_at"]) == ({}, {}, None)
    rotated = run("keys", "rotate", key, "--grace", "1h")
    assert (rotated["id"], looks_like_key(rotated["secret"])) == (key, True)
    assert run("keys", "revoke", key)["revoked_at"] is not None
    status, out, _ = text("keys", "list", "--account", account)
    assert status == 0
    head, row = out.splitlines()
    assert head.split()[:3] == ["KEY", "ACCOUNT", "NAME"]
    assert row.split()[0] == key
    assert "revoked" in row


def test_a_secret_is_alone_on_standard_output(text: Run, world: World) -> None:
    status, out, err = text("keys", "create", "--account", world.account.id, "--name", "gate")
    assert status == 0
    assert looks_like_key(out.strip())
    assert out.strip() not in err
    key = err.split(":")[0]
    status, out, err = text("keys", "rotate", key)
    assert (status, looks_like_key(out.strip())) == (0, True)
    status, out, _ = text("keys", "show", key)
    assert status == 0
    assert out.splitlines()[0].split() == ["key", key]


def test_organisations_and_accounts(run: Run, text: Run) -> None:
    owner = run("accounts", "add-organisation", "Farm")["id"]
    made = run("accounts", "create", "--organisation", owner, "--name", "barn", "--postpaid")
    assert made["prepaid"] is False
    assert run("accounts", "list", "--organisation", owner) == [made]
    changed = run("accounts", "update", made["id"], "--prepaid", "--name", "barns")
    assert (changed["prepaid"], changed["name"]) == (True, "barns")
    assert run("accounts", "show", made["id"]) == changed
    assert run("accounts", "close", made["id"])["closed_at"] is not None
    assert run("accounts", "close-organisation", owner)["closed_at"] is not None
    _, out, _ = text("accounts", "organisations")
    assert [line.split()[-1] for line in out.splitlines()[1:]] == ["open", "open", "closed"]
    log = run("accounts", "audit", made["id"])
    assert [one["action"] for one in log] == ["account.close", "account.update", "account.create"]


def test_credits_and_usage(run: Run, text: Run, world: World) -> None:
    account = world.account.id
    charged(world, world.key(), 1_250_000_000)
    assert run("credits", "grant", account, "2.50", "--note", "invoice 7")["balance"] == "6.25"
    assert run("credits", "refund", account, "0.25")["available"] == "6.5"
    entries = run("credits", "entries", account)
    assert [one["kind"] for one in entries] == ["refund", "grant", "charge", "sign_up"]
    assert len(run("credits", "entries", account, "--limit", "1")) == 1
    _, out, _ = text("credits", "show", account)
    assert "balance    6.5 US dollars" in out
    [used] = run("usage", "--account", account, "--by", "model,key")
    assert (used["model"], used["cost"]) == ("blip-large", "1.25")
    _, out, _ = text("usage", "--all", "--by", "account")
    assert out.splitlines()[1].split() == [account, "1", "0", "1", "0", "0", "7", "1.25"]
    status, out, _ = text("usage", "--account", account, "--csv")
    assert status == 0
    assert [row["cost"] for row in csv.DictReader(io.StringIO(out))] == ["1.25"]


def test_what_is_wrong(text: Run, world: World) -> None:
    status, out, err = text("keys", "show", "nobody")
    assert (status, out, err) == (2, "", "error: There is no key of this id.\n")
    status, _, err = text("accounts", "create", "--organisation", world.account.organisation, "--name", "cameras")
    assert (status, err) == (2, "error: The organisation has an account of this name.\n")
    status, _, err = text("usage", "--all", "--by", "week")
    assert status == 2
    assert "group_by" in err


def test_commands_without_a_key_and_with_the_wrong_one(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with listening(world.app(world.keyring())) as address:
        monkeypatch.delenv("GIGAROUTER_API_KEY", raising=False)
        assert main(["keys", "list", "--url", address]) == 1
        assert "has no API key" in capsys.readouterr().err
        wrong = new_secret()
        monkeypatch.setenv("GIGAROUTER_API_KEY", wrong)
        assert main(["accounts", "list", "--url", address]) == 1
        assert wrong not in capsys.readouterr().err
        monkeypatch.setenv("GIGAROUTER_API_KEY", world.key())
        assert main(["credits", "grant", world.account.id, "1", "--url", address]) == 1
        assert "asks for admin" in capsys.readouterr().err
        monkeypatch.setenv("GIGAROUTER_API_KEY", world.admin)
        for command, hint in (("usage", "--all"), ("credits show", "by its id"), ("credits entries", "by its id")):
            assert main([*command.split(), "--url", address]) == 1
            assert hint in capsys.readouterr().err


def test_commands_about_the_key_that_is_used(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = world.key(budgets={"day": 2_000_000_000})
    charged(world, secret, 500_000_000)
    with listening(world.app(world.keyring())) as address:
        monkeypatch.setenv("GIGAROUTER_API_KEY", secret)
        monkeypatch.setenv("GIGAROUTER_URL", address)
        assert main(["keys", "show"]) == 0
        assert "budgets    day=2" in capsys.readouterr().out
        assert main(["credits", "show"]) == 0
        out = capsys.readouterr().out
        assert "balance        4.5 US dollars" in out
        assert "left this day  1.5 of 2" in out
        assert main(["credits", "entries"]) == 0
        assert "-0.5" in capsys.readouterr().out
        assert main(["usage", "--by", "key", "--csv"]) == 0
        assert capsys.readouterr().out.splitlines()[1].endswith(",0.5")


def test_a_database_is_used_without_a_key(url: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["keys", "show"], ["credits", "show"], ["credits", "entries"]):
        assert main([*command, "--database", url]) == 2
        assert "name a" in capsys.readouterr().err


def test_from_nothing_to_the_first_key(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accounts", "bootstrap", "--database", url]) == 1
    assert "gigarouter accounts migrate" in capsys.readouterr().err
    assert main(["accounts", "migrate", "--database", url]) == 0
    assert main(["accounts", "migrate", "--database", url]) == 0, "nothing is left to do"
    capsys.readouterr()
    assert main(["accounts", "bootstrap", "--database", url]) == 0
    printed = capsys.readouterr()
    secret = printed.out.strip()
    assert looks_like_key(secret)
    assert secret not in printed.err
    assert main(["accounts", "bootstrap", "--database", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["secret"] != secret, "each time another"
    database = open_database(url)
    directory = open_directory(database)
    found = directory.find(directory.digest(secret))
    assert found is not None
    assert found.spec.scopes == {"admin"}
    database.close()
    assert main(["accounts", "check", "--database", url]) == 0
    assert capsys.readouterr().out == "everything adds up\n"


def test_a_database_goes_back_to_an_older_version(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accounts", "migrate", "--database", url]) == 0
    assert main(["accounts", "migrate", "--database", url, "--back-to", "0001"]) == 0
    assert capsys.readouterr().out == "the database has version 0001\n" * 2
    assert main(["accounts", "migrate", "--database", url, "--back-to", "9999"]) == 1
    assert "knows no version 9999" in capsys.readouterr().err
    for word in ("base", "head", "-1"):
        with pytest.raises(SystemExit, match="2"):
            main(["accounts", "migrate", "--database", url, f"--back-to={word}"])


def test_a_sum_that_is_wrong_is_a_failure(url: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    from sqlalchemy import update

    from accounts import schema

    with world.database.begin() as connection:
        connection.execute(update(schema.balances).values(settled=1))
    assert main(["accounts", "check", "--database", url]) == 1
    assert world.account.id in capsys.readouterr().out
    assert main(["accounts", "check", "--database", url, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["differences"]


@pytest.mark.parametrize("words", ["migrate", "bootstrap", "check", "list"])
def test_a_database_that_is_none(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "hunter2"
    assert main(["accounts", words, "--database", f"mysql://kim:{secret}@host/accounts"]) == 1
    assert secret not in capsys.readouterr().err


@pytest.mark.parametrize("words", ["bootstrap", "check", "list"])
def test_who_only_looks_makes_no_file(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accounts", words, "--database", f"sqlite:///{tmp_path}/misspelt/accounts.db"]) == 1
    assert "there is no database" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["migrate", "bootstrap", "check", "list"])
def test_why_a_database_does_not_answer(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accounts", words, "--database", "postgresql://kim:hunter2@127.0.0.1:9/accounts"]) == 1
    wanted = "error: the database of accounts does not answer: nothing listens at its address\n"
    assert capsys.readouterr().err == wanted


def test_the_url_in_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GIGAROUTER_DATABASE_URL", raising=False)
    assert main(["accounts", "migrate"]) == 1
    monkeypatch.setenv("GIGAROUTER_DATABASE_URL", url)
    assert main(["accounts", "migrate"]) == 0
    assert main(["accounts", "organisations", "--database", "environment"]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["keys"],
        ["keys", "create"],
        ["keys", "create", "--account", "a", "--name", "n", "--limit", "requests"],
        ["keys", "create", "--account", "a", "--name", "n", "--limit", "wishes=3"],
        ["keys", "create", "--account", "a", "--name", "n", "--budget", "week=3"],
        ["keys", "create", "--account", "a", "--name", "n", "--budget", "day=-3"],
        ["keys", "create", "--account", "a", "--name", "n", "--budget", "day=lots"],
        ["keys", "create", "--account", "a", "--name", "n", "--expires", "2026-02-30"],
        ["keys", "create", "--account", "a", "--name", "n", "--expires", "soon"],
        ["keys", "create", "--account", "a", "--name", "n", "--expires", "2020-01-31"],
        ["keys", "create", "--account", "a", "--name", "n", "--scope", "root"],
        ["keys", "rotate", "key", "--grace", "3"],
        ["accounts"],
        ["accounts", "show"],
        ["credits", "grant", "a", "0"],
        ["credits", "grant", "a", "1,5"],
        ["usage", "--csv", "--json"],
        ["usage", "--all", "--account", "a"],
        ["usage", "--url", "nowhere"],
    ],
)
def test_command_lines_that_make_no_sense(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_nothing_that_answers_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "list", "--url", "http://127.0.0.1:9", "--timeout", "2"]) == 1
    assert "Is it running?" in capsys.readouterr().err
