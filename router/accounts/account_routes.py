"""All routes about accounts, and the one by which a key sees itself."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from router.accounts.admin import AdminRoutes
from router.accounts.handlers import Handlers, key_of, private
from router.accounts.limits import limits_of
from router.accounts.money_routes import MoneyRoutes
from router.accounts.views import key_json

Json = dict[str, Any]


class AccountRoutes(Handlers):
    """Answers what concerns accounts; ``accounts`` is None where this server keeps none."""

    def routes(self) -> list[Route]:
        """All of them, with those by which accounts are managed."""
        return [
            self._route("GET", "/v1/key", self.retrieve_own_key),
            *MoneyRoutes(self._accounts, self._config).routes(),
            *AdminRoutes(self._accounts, self._config).routes(),
        ]

    async def retrieve_own_key(self, request: Request) -> Response:
        """``GET /v1/key``: what the key is that asks, with the limits that hold for it."""
        key = key_of(request.scope)
        return private(key_json(key, key.spec.limits or limits_of(self._config)))
