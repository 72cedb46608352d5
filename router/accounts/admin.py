"""The routes by which accounts are managed: for keys with the scope ``admin``, and each change in the audit log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from router.accounts.bodies import (
    AccountBody,
    AccountChanges,
    KeyBody,
    KeyChanges,
    OrganisationBody,
    RotationBody,
)
from router.accounts.handlers import Handlers, admin_of, body_of, id_in_path, private
from router.accounts.pages import id_of, limit_of, number_after, page_json
from router.accounts.threads import in_thread
from router.accounts.views import account_json, audit_json, key_json, new_key_json, organisation_json

Json = dict[str, Any]
T = TypeVar("T")


class AdminRoutes(Handlers):
    """Organisations, accounts and keys, and who changed what."""

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            self._admin("POST", "/organisations", self.create_organisation),
            self._admin("GET", "/organisations", self.list_organisations),
            self._admin("GET", "/organisations/{id}", self.retrieve_organisation),
            self._admin("DELETE", "/organisations/{id}", self.close_organisation),
            self._admin("POST", "/accounts", self.create_account),
            self._admin("GET", "/accounts", self.list_accounts),
            self._admin("GET", "/accounts/{id}", self.retrieve_account),
            self._admin("PATCH", "/accounts/{id}", self.update_account),
            self._admin("DELETE", "/accounts/{id}", self.close_account),
            self._admin("POST", "/keys", self.create_key),
            self._admin("GET", "/keys", self.list_keys),
            self._admin("GET", "/keys/{id}", self.retrieve_key),
            self._admin("PATCH", "/keys/{id}", self.update_key),
            self._admin("DELETE", "/keys/{id}", self.revoke_key),
            self._admin("POST", "/keys/{id}/rotate", self.rotate_key),
            self._admin("GET", "/audit", self.list_audit),
        ]

    async def create_organisation(self, request: Request) -> Response:
        """``POST /v1/admin/organisations``."""
        body = await body_of(request, OrganisationBody)
        made = await self._changing(self._on.directory.create_organisation, body.name, admin_of(request))
        return private(organisation_json(made))

    async def list_organisations(self, request: Request) -> Response:
        """``GET /v1/admin/organisations``, the oldest first."""
        return await self._page(request, self._on.directory.organisations, organisation_json)

    async def retrieve_organisation(self, request: Request) -> Response:
        """``GET /v1/admin/organisations/{id}``."""
        return private(organisation_json(await in_thread(self._on.directory.organisation, id_in_path(request))))

    async def close_organisation(self, request: Request) -> Response:
        """``DELETE /v1/admin/organisations/{id}``: it is closed with all its accounts, and stays in the books."""
        closed = await self._changing(self._on.directory.close_organisation, id_in_path(request), admin_of(request))
        return private(organisation_json(closed))

    async def create_account(self, request: Request) -> Response:
        """``POST /v1/admin/accounts``."""
        body = await body_of(request, AccountBody)
        create = partial(self._on.directory.create_account, prepaid=body.prepaid)
        return private(account_json(await self._changing(create, body.organisation, body.name, admin_of(request))))

    async def list_accounts(self, request: Request) -> Response:
        """``GET /v1/admin/accounts``, of one organisation or of all, the oldest first."""
        find = partial(self._on.directory.accounts, id_of(request.query_params, "organisation"))
        return await self._page(request, find, account_json)

    async def retrieve_account(self, request: Request) -> Response:
        """``GET /v1/admin/accounts/{id}``."""
        return private(account_json(await in_thread(self._on.directory.account, id_in_path(request))))

    async def update_account(self, request: Request) -> Response:
        """``PATCH /v1/admin/accounts/{id}``."""
        body = await body_of(request, AccountChanges)
        update = partial(self._on.directory.update_account, name=body.name, prepaid=body.prepaid)
        return private(account_json(await self._changing(update, id_in_path(request), admin_of(request))))

    async def close_account(self, request: Request) -> Response:
        """``DELETE /v1/admin/accounts/{id}``: its keys are good for nothing, and what it did stays in the books."""
        closed = await self._changing(self._on.directory.close_account, id_in_path(request), admin_of(request))
        return private(account_json(closed))

    async def create_key(self, request: Request) -> Response:
        """``POST /v1/admin/keys``: the only answer that has the secret."""
        body = await body_of(request, KeyBody)
        made = await self._changing(self._on.directory.create_key, body.account, body.spec, admin_of(request))
        return private(new_key_json(made))

    async def list_keys(self, request: Request) -> Response:
        """``GET /v1/admin/keys``, of one account or of all, the oldest first."""
        find = partial(self._on.directory.keys, id_of(request.query_params, "account"))
        return await self._page(request, find, key_json)

    async def retrieve_key(self, request: Request) -> Response:
        """``GET /v1/admin/keys/{id}``."""
        return private(key_json(await in_thread(self._on.directory.key, id_in_path(request))))

    async def update_key(self, request: Request) -> Response:
        """``PATCH /v1/admin/keys/{id}``."""
        body = await body_of(request, KeyChanges)
        changed = await self._changing(self._on.directory.update_key, id_in_path(request), body.on, admin_of(request))
        return private(key_json(changed))

    async def rotate_key(self, request: Request) -> Response:
        """``POST /v1/admin/keys/{id}/rotate``: another secret, and the one before holds for a while."""
        body = await body_of(request, RotationBody)
        rotate = partial(self._on.directory.rotate_key, grace_s=body.grace_s)
        return private(new_key_json(await self._changing(rotate, id_in_path(request), admin_of(request))))

    async def revoke_key(self, request: Request) -> Response:
        """``DELETE /v1/admin/keys/{id}``: it is good for nothing from now on, and stays in the books."""
        return private(
            key_json(await self._changing(self._on.directory.revoke_key, id_in_path(request), admin_of(request)))
        )

    async def list_audit(self, request: Request) -> Response:
        """``GET /v1/admin/audit``, of one subject or of all, the newest first."""
        query = request.query_params
        limit = limit_of(query)
        find = partial(self._on.directory.audit_entries, before=number_after(query), limit=limit + 1)
        found = await in_thread(find, id_of(query, "subject"))
        return private(page_json([audit_json(one) for one in found], limit))

    async def _page(self, request: Request, find: Callable[..., Sequence[T]], shown: Callable[[T], Json]) -> Response:
        query = request.query_params
        limit = limit_of(query)
        found = await in_thread(partial(find, after=id_of(query, "after"), limit=limit + 1))
        return private(page_json([shown(one) for one in found], limit))
