"""The routes by which accounts are managed, over real databases."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from accounts.database import Database
from router.accounts.account_routes import AccountRoutes
from router.accounts.authentication import scopes_of
from router.config import RouterConfig
from tests.router.accounts.books import ON_SQLITE
from tests.router.accounts.books import world as a_world
from tests.router.world import FakeBackend, check_error, client

Json = dict[str, Any]

pytestmark = pytest.mark.anyio

ROUTES = [
    (method, route.path)
    for route in AccountRoutes(None, RouterConfig()).routes()
    for method in sorted((route.methods or set()) - {"HEAD"})
]


async def said(asking: Any) -> Json:
    """The JSON of a good answer."""
    answer: httpx.Response = await asking
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "private, no-store"
    found: Json = answer.json()
    return found


async def test_from_an_organisation_to_a_key_that_works_until_it_is_revoked(database: Database) -> None:
    world = a_world(database)
    async with world.serving(world.admin) as [http]:
        owner = await said(http.post("/v1/admin/organisations", json={"name": "Farm"}))
        assert owner == {"id": owner["id"], "object": "organisation", "name": "Farm", "created_at": owner["created_at"],
                         "closed_at": None}  # fmt: skip
        account = await said(http.post("/v1/admin/accounts", json={"organisation": owner["id"], "name": "barn"}))
        assert (account["object"], account["prepaid"], account["closed_at"]) == ("account", True, None)
        asked = {"account": account["id"], "name": "door", "models": ["b", "a"], "budgets": {"day": "0.50"},
                 "limits": {"*": {"requests": 3}}, "expires_at": 4_000_000_000}  # fmt: skip
        key = await said(http.post("/v1/admin/keys", json=asked))
        secret = key.pop("secret")
        assert secret.startswith("gr-")
        assert len(secret) == 46
        assert key == await said(http.get(f"/v1/admin/keys/{key['id']}"))
        none = {"images": None, "tokens": None, "concurrent": None}
        assert key == {
            "id": key["id"], "object": "key", "account": account["id"], "name": "door", "hint": secret[:7],
            "scopes": ["inference"], "models": ["a", "b"], "tasks": None, "origins": None,
            "limits": {"*": {"requests": 3, **none}}, "budgets": {"day": "0.5"}, "created_at": key["created_at"],
            "expires_at": 4_000_000_000, "revoked_at": None, "last_used_at": None,
        }  # fmt: skip
        http.headers["authorization"] = f"Bearer {secret}"
        assert (await http.post("/v1/chat/completions")).json()["key"] == key["id"]
        http.headers["authorization"] = f"Bearer {world.admin}"
        revoked = await said(http.delete(f"/v1/admin/keys/{key['id']}"))
        assert revoked["revoked_at"] is not None
        http.headers["authorization"] = f"Bearer {secret}"
        check_error(await http.post("/v1/chat/completions"), 401, "invalid_api_key", None)


async def test_changes_of_a_key_hold_at_once(database: Database) -> None:
    world = a_world(database)
    secret = world.key(models=frozenset({"a"}), budgets={"day": 5})
    async with world.serving(world.admin, secret) as [admin, http]:
        mine = await said(http.get("/v1/key"))
        path = f"/v1/admin/keys/{mine['id']}"
        changed = await said(admin.patch(path, json={"name": "gate", "models": None, "tasks": ["caption"]}))
        assert (changed["name"], changed["models"], changed["tasks"]) == ("gate", None, ["caption"])
        assert changed["budgets"] == {"day": "0.000000005"}
        assert {**await said(http.get("/v1/key")), "last_used_at": None} == {**changed, "last_used_at": None}
        assert await said(admin.patch(path, json={})) == changed
        check_error(await admin.patch(path, json={"nam": "x"}), 400, "unsupported_parameter", "nam")
        await said(admin.patch(path, json={"scopes": ["monitor"]}))
        check_error(await http.post("/v1/chat/completions"), 403, "key_not_allowed", None)
        await said(admin.patch(path, json={"expires_at": 1}))
        check_error(await http.get("/v1/key"), 401, "invalid_api_key", None)


async def test_rotation_with_and_without_grace(database: Database) -> None:
    world = a_world(database)
    first = world.key()
    async with world.serving(world.admin, first) as [admin, http]:
        mine = await said(http.get("/v1/key"))
        second = await said(admin.post(f"/v1/admin/keys/{mine['id']}/rotate", json={"grace_s": 3600}))
        assert second["id"] == mine["id"]
        old = await said(http.get("/v1/key"))
        assert old["expires_at"] == pytest.approx(old["created_at"] + 3600, abs=60), "when the old secret ends"
        new = {"authorization": f"Bearer {second['secret']}"}
        assert (await said(http.get("/v1/key", headers=new)))["expires_at"] is None
        third = await said(admin.post(f"/v1/admin/keys/{mine['id']}/rotate"))
        for secret in (first, second["secret"]):
            answer = await http.get("/v1/key", headers={"authorization": f"Bearer {secret}"})
            check_error(answer, 401, "invalid_api_key", None)
        assert (await http.get("/v1/key", headers={"authorization": f"Bearer {third['secret']}"})).status_code == 200


async def test_an_account_that_is_closed_ends_its_keys(database: Database) -> None:
    world = a_world(database)
    secret, of_other = world.key(), world.key(account=world.other)
    async with world.serving(world.admin, secret, of_other) as [admin, http, other]:
        assert (await http.get("/v1/key")).status_code == 200
        closed = await said(admin.delete(f"/v1/admin/accounts/{world.account.id}"))
        assert closed["closed_at"] is not None
        check_error(await http.get("/v1/key"), 401, "invalid_api_key", None)
        assert (await other.get("/v1/key")).status_code == 200
        body = {"account": world.account.id, "name": "late"}
        check_error(await admin.post("/v1/admin/keys", json=body), 400, "conflict", "account")
        await said(admin.delete(f"/v1/admin/organisations/{world.account.organisation}"))
        check_error(await other.get("/v1/key"), 401, "invalid_api_key", None)


async def test_accounts_are_renamed_and_become_prepaid_or_not(database: Database) -> None:
    world = a_world(database)
    async with world.serving(world.admin) as [http]:
        path = f"/v1/admin/accounts/{world.account.id}"
        assert (await said(http.patch(path, json={"prepaid": False})))["prepaid"] is False
        assert (await said(http.patch(path, json={"name": "all cameras"})))["name"] == "all cameras"
        found = await said(http.get(path))
        assert (found["name"], found["prepaid"]) == ("all cameras", False)


async def test_what_is_not_there_and_what_is_there_already(database: Database) -> None:
    world = a_world(database)
    async with world.serving(world.admin) as [http]:
        answer = await http.post("/v1/admin/organisations", json={"name": "Example"})
        check_error(answer, 400, "conflict", "name")
        assert answer.headers["x-should-retry"] == "false"
        body = {"organisation": world.account.organisation, "name": "cameras"}
        check_error(await http.post("/v1/admin/accounts", json=body), 400, "conflict", "name")
        for kind, param in (("organisations", "organisation"), ("accounts", "account"), ("keys", "key")):
            for method in ("GET", "DELETE", *(["PATCH"] if kind != "organisations" else [])):
                answer = await http.request(method, f"/v1/admin/{kind}/nobody", json={})
                check_error(answer, 404, "not_found", param)
        check_error(await http.post("/v1/admin/keys/nobody/rotate", json={}), 404, "not_found", "key")
        check_error(await http.post("/v1/admin/keys", json={"account": "x", "name": "n"}), 404, "not_found", "account")


@ON_SQLITE
@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "missing_required_parameter", "name"),
        (b"[]", "invalid_json", None),
        (b"{", "invalid_json", None),
        (b"[" * 40, "invalid_json", None),
        (b'{"account": "a", "name": "n", "scopes": "admin"}', "invalid_type", "scopes"),
        (b'{"account": "a", "name": "n", "limits": {"*": {"requests": -1}}}', "invalid_value", "limits.*.requests"),
    ],
)
async def test_bodies_that_are_wrong(database: Database, body: bytes, code: str, param: str | None) -> None:
    world = a_world(database)
    async with world.serving(world.admin) as [http]:
        check_error(await http.post("/v1/admin/keys", content=body), 400, code, param)
        answer = await http.post("/v1/admin/keys", content=b" " * 70_000)
        check_error(answer, 413, "request_too_large", None)


async def test_lists_come_in_pages(database: Database) -> None:
    world = a_world(database)
    secrets = [world.key(name=f"camera {number}") for number in range(7)]
    assert len(set(secrets)) == 7
    async with world.serving(world.admin) as [http]:
        found: list[Json] = []
        after: Json = {}
        while True:
            page = await said(http.get("/v1/admin/keys", params={"limit": 3, "account": world.account.id, **after}))
            found += page["data"]
            assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
            if not page["has_more"]:
                break
            after = {"after": page["last_id"]}
        assert [key["name"] for key in found] == [f"camera {number}" for number in range(7)]
        assert not any("secret" in key for key in found)
        all_keys = await said(http.get("/v1/admin/keys"))
        assert len(all_keys["data"]) == 8, "the admin's too"
        accounts = await said(http.get("/v1/admin/accounts", params={"organisation": world.account.organisation}))
        assert [one["name"] for one in accounts["data"]] == ["cameras", "drones"]
        assert [one["name"] for one in (await said(http.get("/v1/admin/organisations")))["data"]] == [
            "admin",
            "Example",
        ]
        assert (await said(http.get("/v1/admin/accounts", params={"organisation": "nobody"})))["data"] == []
        for limit in ("0", "1001", "-1", "x", "", "٣", "1e2"):
            check_error(await http.get("/v1/admin/keys", params={"limit": limit}), 400, "invalid_value", "limit")
        check_error(await http.get("/v1/admin/keys", params={"after": "nobody"}), 404, "not_found", "after")


async def test_every_change_is_in_the_audit_log(database: Database) -> None:
    world = a_world(database)
    async with world.serving(world.admin) as [http]:
        me = (await said(http.get("/v1/key")))["id"]
        key = await said(http.post("/v1/admin/keys", json={"account": world.account.id, "name": "n"}))
        path = f"/v1/admin/keys/{key['id']}"
        await said(http.patch(path, json={"name": "m"}))
        rotated = await said(http.post(f"{path}/rotate"))
        await said(http.delete(path))
        await http.delete("/v1/admin/keys/nobody")
        log = await said(http.get("/v1/admin/audit", params={"subject": key["id"]}))
        assert [one["action"] for one in log["data"]] == ["key.revoke", "key.rotate", "key.update", "key.create"]
        assert {one["actor"] for one in log["data"]} == {me}
        assert log["data"][2]["details"] == {"name": "m"}
        first = await said(http.get("/v1/admin/audit", params={"limit": 2}))
        assert [one["action"] for one in first["data"]] == ["key.revoke", "key.rotate"]
        second = await said(http.get("/v1/admin/audit", params={"limit": 2, "after": first["last_id"]}))
        assert [one["action"] for one in second["data"]] == ["key.update", "key.create"]
        check_error(await http.get("/v1/admin/audit", params={"after": "x"}), 400, "invalid_value", "after")
        everything = (await http.get("/v1/admin/audit", params={"limit": 1000})).text
        assert not any(secret in everything for secret in (key["secret"], rotated["secret"], world.admin))


@ON_SQLITE
@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_asks_for_its_scope(database: Database, method: str, path: str) -> None:
    world = a_world(database)
    allowed = scopes_of(path) or {"admin", "inference", "monitor"}
    assert allowed == {"admin"} if path.startswith("/v1/admin") else "inference" in allowed
    async with world.serving(world.key("inference"), world.key("monitor"), world.admin) as clients:
        for scope, http in zip(("inference", "monitor", "admin"), clients, strict=True):
            answer = await http.request(method, path.replace("{id}", "nobody"))
            assert (answer.status_code == 403) == (scope not in allowed), answer.text
            if scope not in allowed:
                check_error(answer, 403, "key_not_allowed", None)


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_without_accounts_every_route_says_so(method: str, path: str) -> None:
    async with client(FakeBackend()) as http:
        check_error(await http.request(method, path), 404, "accounts_not_enabled", None)


async def test_characters_that_not_every_database_takes(database: Database) -> None:
    world = a_world(database)
    async with world.serving(world.admin) as [http]:
        for path in ("keys?account=%00", "keys?after=a%00", "accounts?organisation=%00", "audit?subject=%00",
                     "usage?account=%00", "keys?account="):  # fmt: skip
            name = path.partition("?")[2].partition("=")[0]
            check_error(await http.get(f"/v1/admin/{path}"), 400, "invalid_value", name)
        for path in ("keys/%00", "accounts/%00", "organisations/a%00", "credits/%00", "credits/%00/entries",
                     "keys/%F0%9F%98%80", f"keys/{'x' * 1000}"):  # fmt: skip
            check_error(await http.get(f"/v1/admin/{path}"), 404, "not_found", "id")
        body = {"account": "a\0", "name": "n"}
        check_error(await http.post("/v1/admin/keys", json=body), 400, "invalid_value", "account")
        page = base64.urlsafe_b64encode(json.dumps(["\0"]).encode()).decode()
        check_error(await http.get("/v1/admin/usage", params={"page": page}), 400, "invalid_value", "page")
        body = {"account": world.account.id, "amount": "1", "note": "\ud800"}
        check_error(await http.post("/v1/admin/credits", content=json.dumps(body)), 400, "invalid_value", "note")
        assert (await http.post("/v1/admin/organisations", json={"name": "Caf\u00e9 \U0001f600"})).status_code == 200
