"""The routes about money: what an account has and what became of it, for its own keys and for those that manage it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from accounts.money import nano_of
from accounts.usage_rows import MAX_ROWS, Group, UsageRow, csv_of
from router.accounts.bodies import CreditBody
from router.accounts.handlers import PRIVATE, Handlers, admin_of, body_of, id_in_path, key_of, private
from router.accounts.money_views import budgets_json, credits_json, entry_json, usage_json
from router.accounts.pages import id_of, limit_of, number_after, page_json
from router.accounts.threads import in_thread
from router.accounts.usage_query import UsageQuery, read_usage_query
from vlm.errors import InvalidRequest

OWN_GROUPS: Sequence[Group] = ("day", "model", "key")
ALL_GROUPS: Sequence[Group] = (*OWN_GROUPS, "account")
ONE_DAY = timedelta(days=1)


class MoneyRoutes(Handlers):
    """Credits, entries of the ledger, and usage."""

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            self._route("GET", "/v1/credits", self.retrieve_own_credits),
            self._route("GET", "/v1/credits/entries", self.list_own_entries),
            self._route("GET", "/v1/usage", self.list_own_usage),
            self._admin("POST", "/credits", self.give_credits),
            self._admin("GET", "/credits/{id}", self.retrieve_credits),
            self._admin("GET", "/credits/{id}/entries", self.list_entries),
            self._admin("GET", "/usage", self.list_usage),
        ]

    async def retrieve_own_credits(self, request: Request) -> Response:
        """``GET /v1/credits``: what the account of the key has, and what is left of the key's budgets."""
        key, books = key_of(request.scope), self._on.books
        balance = await in_thread(books.balance, key.account)
        spent = await in_thread(books.spent, key.id)
        budgets = budgets_json(key.spec.budgets, spent, datetime.now(UTC))
        return private({**credits_json(key.account, balance), "budgets": budgets})

    async def list_own_entries(self, request: Request) -> Response:
        """``GET /v1/credits/entries``: the ledger of the key's account, the newest first."""
        return await self._entries(request, key_of(request.scope).account)

    async def list_own_usage(self, request: Request) -> Response:
        """``GET /v1/usage``: of the key's account, by day, model and key."""
        return await self._usage(request, key_of(request.scope).account, OWN_GROUPS)

    async def give_credits(self, request: Request) -> Response:
        """``POST /v1/admin/credits``: a grant or a refund."""
        body, actor = await body_of(request, CreditBody), admin_of(request)
        give = partial(self._on.books.give, body.account, body.kind, nano_of(body.amount), body.note, actor)
        return private(credits_json(body.account, await in_thread(give)))

    async def retrieve_credits(self, request: Request) -> Response:
        """``GET /v1/admin/credits/{id}``, by the id of an account."""
        account = id_in_path(request)
        return private(credits_json(account, await in_thread(self._on.books.balance, account)))

    async def list_entries(self, request: Request) -> Response:
        """``GET /v1/admin/credits/{id}/entries``: the ledger of an account, the newest first."""
        account = id_in_path(request)
        await in_thread(self._on.books.balance, account)  # tells that there is no such account
        return await self._entries(request, account)

    async def list_usage(self, request: Request) -> Response:
        """``GET /v1/admin/usage``, of one account or of all together."""
        return await self._usage(request, id_of(request.query_params, "account"), ALL_GROUPS)

    async def _entries(self, request: Request, account: str) -> Response:
        limit, before = limit_of(request.query_params), number_after(request.query_params)
        find = partial(self._on.books.entries, account, before=before, limit=limit + 1)
        return private(page_json([entry_json(one) for one in await in_thread(find)], limit))

    async def _usage(self, request: Request, account: str | None, groups: Sequence[Group]) -> Response:
        query, limit = read_usage_query(request.query_params, groups), limit_of(request.query_params)
        match request.query_params.get("format", "json"):
            case "json":
                return private(usage_json(query, await self._rows(account, query, limit + 1), limit))
            case "csv":
                return await self._csv(account, query)
        raise InvalidRequest("format: must be json or csv.", "format", "invalid_value")

    async def _csv(self, account: str | None, query: UsageQuery) -> Response:
        """All rows, page after page. The first is read before the answer begins, so that an error has its status."""
        first = await self._rows(account, query, MAX_ROWS)

        async def parts() -> AsyncIterator[str]:
            rows = first
            yield csv_of(rows, UsageRow)
            while len(rows) == MAX_ROWS:
                rows = await self._rows(account, query.behind(rows[-1]), MAX_ROWS)
                yield csv_of(rows, UsageRow, head=False)

        name = f"usage-{query.start}-{query.end}.csv"
        headers = {**PRIVATE, "content-disposition": f"attachment; filename={name}"}
        return StreamingResponse(parts(), headers=headers, media_type="text/csv")

    async def _rows(self, account: str | None, query: UsageQuery, limit: int) -> list[UsageRow]:
        start, end = query.start.isoformat(), (query.end + ONE_DAY).isoformat()
        find = partial(self._on.books.usage, account, start=start, end=end, by=query.by, after=query.after, limit=limit)
        return await in_thread(find)
