"""What a router remembers of keys, for how long, and what it does while the database does not answer."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from accounts.database import Database, open_database
from accounts.directory import Directory
from accounts.errors import AccountsUnavailable
from accounts.keys import new_secret
from accounts.types import Key, KeySpec
from router.accounts import keyring as module
from router.accounts.keyring import Keyring
from tests.router.accounts.world import Table, World, eventually, hashed

pytestmark = pytest.mark.anyio


async def name(keyring: Keyring, secret: str) -> str | None:
    """The id of a key by its secret."""
    key = await keyring.find(hashed(secret))
    return None if key is None else key.id


async def test_a_key_is_asked_for_once() -> None:
    world = World()
    secret, wrong = world.table.add(), new_secret()
    keyring = world.keyring()
    async with keyring.running():
        for _ in range(5):
            assert await name(keyring, secret) == "key_0"
            assert await name(keyring, wrong) is None
    assert world.table.found == {hashed(secret): 1, hashed(wrong): 1}


async def test_many_who_ask_for_the_same_ask_once() -> None:
    world = World()
    secret = world.table.add()
    keyring = world.keyring()
    world.table.silent.clear()
    async with keyring.running():
        leaving = asyncio.create_task(name(keyring, secret))
        waiting = [asyncio.create_task(name(keyring, secret)) for _ in range(20)]
        await asyncio.sleep(0.05)
        leaving.cancel()
        world.table.silent.set()
        assert await asyncio.gather(*waiting) == ["key_0"] * 20
    assert world.table.found == {hashed(secret): 1}


async def test_another_router_notices_a_revocation() -> None:
    table = Table()
    secret = table.add()
    here, there = (World(table).keyring() for _ in range(2))
    async with here.running(), there.running():
        assert [await name(one, secret) for one in (here, there)] == ["key_0", "key_0"]
        table.revoke(secret)

        async def both_refuse() -> bool:
            return [await name(one, secret) for one in (here, there)] == [None, None]

        await eventually(both_refuse)
        assert not here.knows(hashed(secret))


async def test_the_router_that_made_a_change_need_not_wait_for_it() -> None:
    world = World()
    secret = world.table.add()
    keyring = world.keyring(poll_s=1000.0)
    assert await name(keyring, secret) == "key_0"
    world.table.revoke(secret)
    assert await name(keyring, secret) == "key_0", "nobody has said that anything changed"
    await keyring.refresh()
    assert await name(keyring, secret) is None


async def test_other_changes_of_a_key_are_noticed_too() -> None:
    world = World()
    secret = world.table.add()
    keyring = world.keyring()
    async with keyring.running():
        found = await keyring.find(hashed(secret))
        assert found is not None
        world.table.put(secret, replace(found, spec=KeySpec("renamed")))

        async def is_renamed() -> bool:
            key = await keyring.find(hashed(secret))
            return key is not None and key.spec.name == "renamed"

        await eventually(is_renamed)


async def test_a_change_while_a_key_is_asked_for_is_noticed() -> None:
    """The database answers with the key as it was, and the answer arrives after the change."""
    world = World()
    secret = world.table.add()
    keyring = world.keyring(poll_s=1000.0)
    key = world.table.rows[hashed(secret)]
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def find(_digest: bytes) -> object:
        loop.call_soon_threadsafe(asked.set)
        world.table.silent.wait(10)
        return key

    await keyring.refresh()
    world.table.silent.clear()
    world.table.find = find  # type: ignore[method-assign,assignment]  # answers with what it saw before
    waiting = asyncio.create_task(name(keyring, secret))
    await asyncio.wait_for(asked.wait(), 10)
    del world.table.find
    world.table.revoke(secret)
    world.table.silent.set()
    await keyring.refresh()
    await waiting
    assert await name(keyring, secret) is None


async def test_what_is_remembered_goes_on_while_the_database_does_not_answer_and_then_ends() -> None:
    world = World()
    secret = world.table.add()
    keyring = world.keyring(patience_s=0.3)
    async with keyring.running():
        assert await name(keyring, secret) == "key_0"
        world.table.fails = True
        assert await name(keyring, secret) == "key_0"

        async def ends() -> bool:
            try:
                await name(keyring, secret)
            except AccountsUnavailable:
                return True
            return False

        await eventually(ends)
        world.table.fails = False
        assert await name(keyring, secret) == "key_0"


async def test_a_key_that_is_not_remembered_waits_for_the_database() -> None:
    world = World()
    secret = world.table.add()
    keyring = world.keyring(patience_s=20.0)
    world.table.fails = True
    waiting = asyncio.create_task(name(keyring, secret))
    await asyncio.sleep(0.05)
    world.table.fails = False
    assert await waiting == "key_0"


async def test_a_database_that_hangs_is_not_waited_for_longer_than_patience() -> None:
    world = World()
    secret = world.table.add()
    keyring = world.keyring(patience_s=0.1)
    async with keyring.running():
        world.table.silent.clear()
        with pytest.raises(AccountsUnavailable):
            await name(keyring, secret)
        world.table.silent.set()


class Flooded(Table):
    """Whose answers about what is no key take as long as the flood of them lasts."""

    def __init__(self) -> None:
        super().__init__()
        self.ebbs = threading.Event()

    def find(self, digest: bytes) -> Key | None:
        if digest not in self.rows:
            self.ebbs.wait(30)
        return super().find(digest)


async def test_keys_that_were_good_do_not_wait_behind_wrong_ones() -> None:
    """Each change makes a router ask for all of them again, while strangers try one key after the other."""
    table = Flooded()
    secret = table.add()
    keyring = World(table).keyring(patience_s=20.0)
    async with keyring.running():
        assert await name(keyring, secret) == "key_0"
        strangers = [asyncio.create_task(name(keyring, new_secret())) for _ in range(100)]
        try:
            await asyncio.sleep(0.05)
            table.changes += 1
            await keyring.refresh()
            assert await asyncio.wait_for(name(keyring, secret), 5) == "key_0"
        finally:
            table.ebbs.set()
        assert await asyncio.gather(*strangers) == [None] * 100
    assert table.found[hashed(secret)] == 2


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 10)
    world = World()
    secrets = [world.table.add() for _ in range(30)]
    keyring = world.keyring()
    async with keyring.running():
        for secret in secrets:
            await name(keyring, secret)
            await name(keyring, new_secret())
            assert await name(keyring, secrets[0]) == "key_0"
    assert world.table.found[hashed(secrets[0])] == 1, "what is asked for often stays"
    assert len(keyring._good) == len(keyring._unknown) == 10


async def test_uses_are_written_down_now_and_then_and_at_the_end() -> None:
    world = World()
    first, second = world.table.add(), world.table.add()
    keyring = world.keyring(used_s=0.01, clock=lambda: 7.0)
    async with keyring.running():
        await name(keyring, first)
        await name(keyring, first)

        async def is_written() -> bool:
            return world.table.uses == [(frozenset({"key_0"}), 7000)]

        await eventually(is_written)
        world.table.fails = True
        await name(keyring, first)
        await asyncio.sleep(0.05)
        world.table.fails = False
        await name(keyring, second)
    assert {key for uses in world.table.uses[1:] for key in uses[0]} == {"key_0", "key_1"}


async def test_the_log_says_once_that_the_database_is_away_and_once_that_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()

    async def is_back() -> bool:
        return len(caplog.messages) > 1

    async with world.keyring().running():
        world.table.fails = True
        await asyncio.sleep(0.2)  # several questions
        world.table.fails = False
        await eventually(is_back)
    assert caplog.messages == [
        "keys: Accounts do not answer.; it is tried again",
        "keys: the database of accounts answers again",
    ]


async def test_an_unexpected_error_does_not_end_the_search_for_changes(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    secret = world.table.add()
    keyring = world.keyring()

    def fails() -> int:
        raise RuntimeError(secret)

    async with keyring.running():
        world.table.version = fails  # type: ignore[method-assign]
        await asyncio.sleep(0.05)
        del world.table.version
        assert await name(keyring, secret) == "key_0"
        world.table.revoke(secret)

        async def is_refused() -> bool:
            return await name(keyring, secret) is None

        await eventually(is_refused)
    assert "unexpected RuntimeError" in caplog.text
    assert secret not in caplog.text


async def test_two_routers_with_one_database_notice_what_the_other_changed(
    database: Database, database_url: str
) -> None:
    """Each has connections of its own; what one revokes is refused by both."""
    other = open_database(database_url)
    here, there = (Directory(one, b"pepper" * 4) for one in (database, other))
    owner = here.create_organisation("Example", "test")
    account = here.create_account(owner.id, "cameras", "test")
    made = here.create_key(account.id, KeySpec("gate"), "test")
    digest = here.digest(made.secret)
    first, second = (Keyring(one, one.digest, patience_s=5.0) for one in (here, there))
    async with first.running(), second.running():
        assert [await one.find(digest) for one in (first, second)] == [made.key, made.key]
        there.revoke_key(made.key.id, "test")

        async def both_refuse() -> bool:
            return [await one.find(digest) for one in (first, second)] == [None, None]

        await eventually(both_refuse)
    assert here.key(made.key.id).last_used_at is not None, "uses are written down at the end"
    other.close()
