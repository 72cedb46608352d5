"""How a directory begins: with a key that manages all others, and the secret with which keys are hashed."""

from __future__ import annotations

import pytest

from accounts import environment
from accounts.clock import now_ms
from accounts.database import Database, open_database
from accounts.directory import ADMIN, BOOTSTRAP, Directory, open_directory
from accounts.errors import AccountsError
from accounts.keys import new_secret
from accounts.types import KeySpec
from tests.accounts.processes import at_once

ACTOR = "key_actor"


@pytest.fixture
def directory(database: Database) -> Directory:
    return Directory(database, b"the pepper of tests")


def test_bootstrap_makes_one_key_that_manages_all_others(directory: Directory) -> None:
    secret = new_secret()
    key = directory.bootstrap(secret)
    assert directory.find(directory.digest(secret)) == key
    assert key.spec == KeySpec(BOOTSTRAP, frozenset({"admin"}))
    account = directory.account(key.account)
    assert (account.name, account.prepaid) == (ADMIN, False)
    assert directory.organisation(account.organisation).name == ADMIN
    before = (directory.version(), directory.audit_entries())
    assert directory.bootstrap(secret) == key
    assert (directory.version(), directory.audit_entries()) == before
    assert {entry.actor for entry in directory.audit_entries()} == {BOOTSTRAP}


def test_another_secret_makes_another_key_of_the_same_account(directory: Directory) -> None:
    first, second = directory.bootstrap(new_secret()), directory.bootstrap(new_secret())
    assert first.account == second.account
    assert first.id != second.id


def test_bootstrap_does_not_undo_what_was_decided_later(directory: Directory) -> None:
    secret = new_secret()
    key = directory.bootstrap(secret)
    directory.revoke_key(key.id, ACTOR)
    assert not directory.bootstrap(secret).is_good(now_ms())
    directory.close_account(key.account, ACTOR)
    with pytest.raises(AccountsError, match="was closed"):
        directory.bootstrap(new_secret())


@pytest.mark.parametrize("secret", ["", "secret", "gr-short", "sk-" + "a" * 43])
def test_bootstrap_takes_nothing_that_could_be_guessed(directory: Directory, secret: str) -> None:
    with pytest.raises(AccountsError, match=environment.BOOTSTRAP_KEY) as refused:
        directory.bootstrap(secret)
    assert not secret or secret not in str(refused.value)


def test_processes_that_begin_at_once_make_one_key(database_url: str) -> None:
    imports = "from accounts.database import open_database\nfrom accounts.directory import open_directory"
    lines = "print(open_directory(open_database(sys.argv[1])).bootstrap(sys.argv[2]).id)"
    assert len(set(at_once(2, imports, lines, database_url, new_secret()))) == 1
    opened = open_database(database_url)
    directory = open_directory(opened)
    assert (len(directory.keys()), len(directory.accounts()), len(directory.organisations())) == (1, 1, 1)
    assert directory.version() == 1
    opened.close()


def test_the_pepper_is_that_of_the_environment_or_the_database(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(environment.KEY_PEPPER, raising=False)
    of_database = open_directory(database).digest("x")
    assert open_directory(database).digest("x") == of_database
    monkeypatch.setenv(environment.KEY_PEPPER, "a pepper of sixteen")
    assert open_directory(database).digest("x") != of_database
    monkeypatch.setenv(environment.KEY_PEPPER, "short")
    with pytest.raises(AccountsError, match=environment.KEY_PEPPER):
        open_directory(database)


def test_a_pepper_that_the_keys_were_not_made_with_is_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.KEY_PEPPER, "the first pepper")
    secret = new_secret()
    key = open_directory(database).bootstrap(secret)
    for other in ("another pepper..", None):
        if other is None:
            monkeypatch.delenv(environment.KEY_PEPPER)
        else:
            monkeypatch.setenv(environment.KEY_PEPPER, other)
        with pytest.raises(AccountsError, match="another GIGAROUTER_KEY_PEPPER") as refused:
            open_directory(database)
        assert "pepper.." not in str(refused.value)
    monkeypatch.setenv(environment.KEY_PEPPER, "the first pepper")
    assert open_directory(database).bootstrap(secret) == key
