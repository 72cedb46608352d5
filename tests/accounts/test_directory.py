"""The directory: what its changes do, that each is written down and counted, and that nothing of it is secret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import func, select

from accounts import schema
from accounts.clock import now_ms
from accounts.database import Database
from accounts.directory import Directory
from accounts.errors import Conflict, NotFound
from accounts.keys import NewKey, new_secret
from accounts.money import NANO_PER_DOLLAR
from accounts.types import Account, Key, KeySpec, Limits
from vlm.errors import InvalidRequest

PEPPER = b"the pepper of tests"
ACTOR = "key_actor"
HOUR_MS = 3_600_000

FULL = KeySpec(
    name="Ünï code ☃",
    scopes=frozenset({"inference", "monitor"}),
    models=frozenset({"a", "b"}),
    tasks=frozenset(),
    origins=frozenset({"https://app.example.com"}),
    limits={"*": Limits(requests=60, concurrent=4), "a": Limits(images=5, tokens=2**40)},
    budgets={"day": 5 * NANO_PER_DOLLAR, "total": 2**60},
    expires_at=2**42,
)


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1_795_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(database: Database, clock: Clock) -> Directory:
    return Directory(database, PEPPER, clock=clock)


@pytest.fixture
def account(directory: Directory) -> Account:
    owner = directory.create_organisation("Example", ACTOR)
    return directory.create_account(owner.id, "main", ACTOR)


@pytest.fixture
def made(directory: Directory, account: Account) -> NewKey:
    return directory.create_key(account.id, KeySpec("k"), ACTOR)


def found(directory: Directory, secret: str) -> Key | None:
    return directory.find(directory.digest(secret))


def everything(database: Database) -> str:
    """All that the database has, as text."""
    with database.read() as connection:
        rows = [row for table in schema.METADATA.sorted_tables for row in connection.execute(select(table))]
    return repr(rows)


def test_organisations_are_made_found_and_closed(directory: Directory, clock: Clock) -> None:
    made = directory.create_organisation("Example", ACTOR)
    assert directory.organisation(made.id) == made
    assert (made.name, made.created_at, made.closed_at) == ("Example", clock.now, None)
    clock.now += 1
    assert directory.close_organisation(made.id, ACTOR) == replace(made, closed_at=clock.now)
    with pytest.raises(Conflict):
        directory.create_account(made.id, "main", ACTOR)


def test_accounts_are_made_found_and_changed(directory: Directory, account: Account, clock: Clock) -> None:
    assert directory.account(account.id) == account
    assert (account.name, account.prepaid, account.created_at) == ("main", True, clock.now)
    changed = directory.update_account(account.id, ACTOR, name="other", prepaid=False)
    assert changed == directory.account(account.id) == replace(account, name="other", prepaid=False)


def test_a_key_is_found_by_its_secret_as_it_was_made(directory: Directory, account: Account, clock: Clock) -> None:
    made = directory.create_key(account.id, FULL, ACTOR)
    assert made.key.spec == FULL
    assert found(directory, made.secret) == made.key == directory.key(made.key.id)
    assert (made.key.account, made.key.prepaid, made.key.created_at) == (account.id, True, clock.now)
    assert made.key.hint == made.secret[:7]
    assert made.key.is_good(clock.now)
    assert found(directory, new_secret()) is None


def test_another_pepper_finds_nothing(database: Database, directory: Directory, made: NewKey) -> None:
    other = Directory(database, b"another pepper")
    assert found(other, made.secret) is None


def test_no_restriction_is_not_an_empty_one(directory: Directory, account: Account, database: Database) -> None:
    made = directory.create_key(account.id, KeySpec("k", models=frozenset()), ACTOR)
    assert (made.key.spec.models, made.key.spec.tasks) == (frozenset(), None)
    with database.read() as connection:
        nulls = select(func.count()).select_from(schema.keys).where(schema.keys.c.tasks.is_(None))
        assert connection.scalar(nulls) == 1


def test_a_key_is_changed_upon_what_it_allows(directory: Directory, made: NewKey) -> None:
    changed = directory.update_key(made.key.id, lambda spec: replace(FULL, name=spec.name + "!"), ACTOR)
    assert changed.spec == replace(FULL, name="k!")
    assert found(directory, made.secret) == changed
    again = directory.update_key(made.key.id, lambda spec: replace(spec, models=None, budgets={}), ACTOR)
    assert again.spec == replace(FULL, name="k!", models=None, budgets={})


def test_a_change_that_fails_leaves_nothing_behind(directory: Directory, made: NewKey, database: Database) -> None:
    before = everything(database)
    with pytest.raises(ZeroDivisionError):
        directory.update_key(made.key.id, lambda spec: replace(spec, expires_at=1 // 0), ACTOR)
    with pytest.raises(InvalidRequest):
        directory.update_key(made.key.id, lambda spec: replace(spec, scopes=frozenset()), ACTOR)
    assert everything(database) == before


def test_a_revoked_key_is_good_for_nothing(directory: Directory, made: NewKey, clock: Clock) -> None:
    clock.now += 5
    revoked = directory.revoke_key(made.key.id, ACTOR)
    assert revoked == found(directory, made.secret) == replace(made.key, revoked_at=clock.now)
    assert not revoked.is_good(clock.now)
    clock.now += 5
    assert directory.revoke_key(made.key.id, ACTOR) == revoked
    for change in (
        lambda: directory.rotate_key(made.key.id, ACTOR),
        lambda: directory.update_key(made.key.id, lambda spec: spec, ACTOR),
    ):
        with pytest.raises(Conflict):
            change()


def test_a_closed_account_has_no_good_keys(directory: Directory, made: NewKey, clock: Clock) -> None:
    clock.now += 5
    closed = directory.close_account(made.key.account, ACTOR)
    assert closed.closed_at == clock.now
    key = found(directory, made.secret)
    assert key is not None
    assert not key.is_good(clock.now)
    clock.now += 5
    assert directory.close_account(made.key.account, ACTOR) == closed
    with pytest.raises(Conflict):
        directory.create_key(closed.id, KeySpec("k"), ACTOR)
    with pytest.raises(Conflict):
        directory.update_account(closed.id, ACTOR, name="other")


def test_a_closed_organisation_has_no_open_accounts(directory: Directory, made: NewKey, clock: Clock) -> None:
    owner = directory.account(made.key.account).organisation
    directory.create_account(owner, "second", ACTOR)
    other = directory.create_account(directory.create_organisation("Other", ACTOR).id, "main", ACTOR)
    directory.close_organisation(owner, ACTOR)
    assert {account.closed_at for account in directory.accounts(owner)} == {clock.now}
    assert directory.account(other.id).closed_at is None
    key = found(directory, made.secret)
    assert key is not None
    assert not key.is_good(clock.now)


def test_a_replaced_secret_is_good_until_its_time_is_over(directory: Directory, made: NewKey, clock: Clock) -> None:
    rotated = directory.rotate_key(made.key.id, ACTOR, grace_s=3600)
    assert rotated.secret != made.secret
    assert found(directory, rotated.secret) == rotated.key == replace(made.key, hint=rotated.secret[:7])
    old = found(directory, made.secret)
    assert old is not None
    assert old.id == made.key.id
    assert old.is_good(clock.now + HOUR_MS - 1)
    assert not old.is_good(clock.now + HOUR_MS)
    assert rotated.key.is_good(clock.now + HOUR_MS)


def test_a_replaced_secret_expires_with_its_key(directory: Directory, account: Account, clock: Clock) -> None:
    made = directory.create_key(account.id, KeySpec("k", expires_at=clock.now + 5), ACTOR)
    directory.rotate_key(made.key.id, ACTOR, grace_s=3600)
    old = found(directory, made.secret)
    assert old is not None
    assert old.spec.expires_at == clock.now + 5


def test_of_the_replaced_secrets_one_is_good_at_most(directory: Directory, made: NewKey) -> None:
    second = directory.rotate_key(made.key.id, ACTOR, grace_s=3600)
    third = directory.rotate_key(made.key.id, ACTOR, grace_s=3600)
    assert found(directory, made.secret) is None
    assert found(directory, second.secret) is not None
    fourth = directory.rotate_key(made.key.id, ACTOR)
    assert [found(directory, one.secret) is not None for one in (made, second, third, fourth)] == [False] * 3 + [True]


def test_a_revoked_key_takes_its_replaced_secret_along(directory: Directory, made: NewKey, clock: Clock) -> None:
    directory.rotate_key(made.key.id, ACTOR, grace_s=3600)
    directory.revoke_key(made.key.id, ACTOR)
    old = found(directory, made.secret)
    assert old is not None
    assert not old.is_good(clock.now)


def test_lists_come_in_pages_in_the_order_of_making(directory: Directory, account: Account, clock: Clock) -> None:
    made = []
    for number in range(7):
        clock.now += number % 2  # some at the same time
        made.append(directory.create_key(account.id, KeySpec(f"k{number}"), ACTOR).key)
    wanted = sorted(made, key=lambda key: (key.created_at, key.id))
    pages, after = [], None
    while page := directory.keys(account.id, after=after, limit=3):
        pages += page
        after = page[-1].id
    assert pages == wanted == directory.keys()
    with pytest.raises(NotFound):
        directory.keys(after="key_none")


def test_lists_are_of_one_owner_or_all(directory: Directory, account: Account) -> None:
    other = directory.create_organisation("Other", ACTOR)
    second = directory.create_account(other.id, "main", ACTOR)
    key = directory.create_key(second.id, KeySpec("k"), ACTOR).key
    assert directory.accounts(other.id) == [second]
    assert {one.id for one in directory.accounts()} == {account.id, second.id}
    assert (directory.keys(second.id), directory.keys(account.id)) == ([key], [])
    assert {one.name for one in directory.organisations()} == {"Example", "Other"}


@pytest.mark.parametrize("name", ["", " x", "x\n", "a\x00b", "\u202eevil", "x" * 201])
def test_names_can_be_shown_to_people(directory: Directory, account: Account, name: str) -> None:
    for make in (
        lambda: directory.create_organisation(name, ACTOR),
        lambda: directory.create_account(account.organisation, name, ACTOR),
        lambda: directory.create_key(account.id, KeySpec(name), ACTOR),
        lambda: directory.update_account(account.id, ACTOR, name=name),
    ):
        with pytest.raises(InvalidRequest) as refused:
            make()
        assert refused.value.param == "name"


def test_names_tell_organisations_and_their_accounts_apart(directory: Directory, account: Account) -> None:
    with pytest.raises(Conflict):
        directory.create_organisation("Example", ACTOR)
    with pytest.raises(Conflict):
        directory.create_account(account.organisation, "main", ACTOR)
    second = directory.create_account(account.organisation, "second", ACTOR)
    with pytest.raises(Conflict):
        directory.update_account(second.id, ACTOR, name="main")
    assert directory.update_account(second.id, ACTOR, name="second") == second


def test_what_is_not_there_is_not_found(directory: Directory) -> None:
    for ask in (
        lambda: directory.organisation("org_none"),
        lambda: directory.close_organisation("org_none", ACTOR),
        lambda: directory.create_account("org_none", "main", ACTOR),
        lambda: directory.account("acct_none"),
        lambda: directory.close_account("acct_none", ACTOR),
        lambda: directory.update_account("acct_none", ACTOR, name="x"),
        lambda: directory.create_key("acct_none", KeySpec("k"), ACTOR),
        lambda: directory.key("key_none"),
        lambda: directory.update_key("key_none", lambda spec: spec, ACTOR),
        lambda: directory.rotate_key("key_none", ACTOR),
        lambda: directory.revoke_key("key_none", ACTOR),
    ):
        with pytest.raises(NotFound):
            ask()
    assert directory.version() == 0


def test_every_change_is_counted_and_written_down(directory: Directory, clock: Clock) -> None:
    owner = directory.create_organisation("Example", ACTOR)
    account = directory.create_account(owner.id, "main", ACTOR)
    key = directory.create_key(account.id, FULL, ACTOR).key
    changes: list[tuple[Callable[[], object], str, str]] = [
        (lambda: directory.update_account(account.id, ACTOR, name="new"), "account.update", account.id),
        (lambda: directory.update_key(key.id, lambda spec: replace(spec, tasks=None), ACTOR), "key.update", key.id),
        (lambda: directory.rotate_key(key.id, ACTOR, grace_s=5), "key.rotate", key.id),
        (lambda: directory.revoke_key(key.id, ACTOR), "key.revoke", key.id),
        (lambda: directory.close_account(account.id, ACTOR), "account.close", account.id),
        (lambda: directory.close_organisation(owner.id, ACTOR), "organisation.close", owner.id),
    ]
    for change, action, subject in changes:
        clock.now += 1
        version = directory.version()
        change()
        assert directory.version() == version + 1
        [entry] = directory.audit_entries(subject, limit=1)
        assert (entry.action, entry.subject, entry.actor, entry.at) == (action, subject, ACTOR, clock.now)
    assert [entry.action for entry in directory.audit_entries()][-3:] == [
        "key.create", "account.create", "organisation.create",
    ]  # fmt: skip


def test_what_changes_nothing_is_neither_counted_nor_written_down(directory: Directory, made: NewKey) -> None:
    owner = directory.account(made.key.account)
    directory.revoke_key(made.key.id, ACTOR)
    closed = directory.create_organisation("Closed", ACTOR)
    directory.close_organisation(closed.id, ACTOR)
    before = (directory.version(), directory.audit_entries())
    directory.revoke_key(made.key.id, ACTOR)
    directory.update_account(owner.id, ACTOR, name=owner.name, prepaid=owner.prepaid)
    directory.close_organisation(closed.id, ACTOR)
    directory.used([made.key.id], 5)
    assert (directory.version(), directory.audit_entries()) == before


def test_the_audit_log_says_what_was_changed(directory: Directory, made: NewKey, clock: Clock) -> None:
    directory.update_key(made.key.id, lambda spec: replace(spec, models=frozenset({"b", "a"})), "command:" + "x" * 200)
    directory.revoke_key(made.key.id, ACTOR)
    newest, changed, created = directory.audit_entries(made.key.id)
    assert (newest.action, newest.details) == ("key.revoke", {})
    assert (changed.actor, changed.details) == (("command:" + "x" * 200)[:80], {"models": ["a", "b"]})
    assert created.details["account"] == made.key.account
    assert created.details["scopes"] == ["inference"]
    assert directory.audit_entries(made.key.id, before=newest.id, limit=1) == [changed]


def test_last_uses_only_become_later(directory: Directory, made: NewKey) -> None:
    directory.used([made.key.id, made.key.id, "key_none"], 5)
    directory.used([made.key.id], 3)
    directory.used([], 9)
    assert directory.key(made.key.id).last_used_at == 5


def test_accounts_begin_with_the_free_credit(database: Database, clock: Clock) -> None:
    directory = Directory(database, PEPPER, free_credit=5 * NANO_PER_DOLLAR, clock=clock)
    owner = directory.create_organisation("Example", ACTOR)
    account = directory.create_account(owner.id, "main", ACTOR)
    with database.read() as connection:
        [balance] = connection.execute(select(schema.balances))
        [entry] = connection.execute(select(schema.entries))
    assert tuple(balance) == (account.id, 5 * NANO_PER_DOLLAR, 0)
    assert (entry.account_id, entry.kind, entry.amount, entry.at) == (account.id, "sign_up", balance.settled, clock.now)
    assert directory.audit_entries(account.id)[0].details["credit"] == "5"


def test_without_one_they_begin_with_nothing(database: Database, account: Account) -> None:
    with database.read() as connection:
        assert [tuple(row) for row in connection.execute(select(schema.balances))] == [(account.id, 0, 0)]
        assert list(connection.execute(select(schema.entries))) == []


def test_nothing_secret_is_kept_or_shown(directory: Directory, account: Account, database: Database) -> None:
    made = directory.create_key(account.id, FULL, ACTOR)
    rotated = directory.rotate_key(made.key.id, ACTOR, grace_s=60)
    secret = new_secret()
    key = directory.bootstrap(secret)
    shown = everything(database) + f"{directory} {made} {rotated} {key} {directory.keys()} {directory.audit_entries()}"
    for one in (made.secret, rotated.secret, secret):
        assert one not in shown
        assert one[8:] not in shown
    assert PEPPER.decode() not in shown


def test_the_clock_is_that_of_the_world() -> None:
    assert 1_790_000_000_000 < now_ms() < 4_000_000_000_000
