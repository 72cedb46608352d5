"""What the commands about accounts share: whom they ask, and how they print what they are told.

They ask a running router over HTTP, with a key; or, with ``--database``, the same routes in this process, over the
database itself and without a key, for whoever may read and write it. So both have the same powers, words and errors.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx2

from accounts.errors import AccountsError, AccountsUnavailable
from gigarouter.ask import BAD_INPUT, FAILED, KEY_VARIABLE, URL, URL_VARIABLE, address, default_url, headers, seconds

Json = dict[str, Any]

TIMEOUT_S = 30.0
PAGE = 500
OWN = {
    "/v1/credits": "name an account by its id",
    "/v1/credits/entries": "name an account by its id",
    "/v1/usage": "name an account with --account ID, or all with --all",
}
"""What is to be done where a key that only manages accounts asks for what it has itself."""
WHERE = (
    f"The router is at {URL_VARIABLE}, and a key is read from {KEY_VARIABLE}. Exit status: 0 done, 1 a failure, 2 bad "
    "input."
)


class Refused(Exception):
    """What was asked for was not done; the message says why, and ``status`` is the exit status that it calls for."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


class Router:
    """A router that is asked, here or elsewhere."""

    def __init__(self, client: httpx2.AsyncClient, place: str) -> None:
        self._client = client
        self._place = place

    async def ask(self, method: str, path: str, body: Json | None = None, **query: object) -> Json:
        """The JSON of a good answer.

        Raises:
            Refused: There is none.
        """
        found = _json_of(response := await self._send(method, path, body, query))
        if found is None:
            raise Refused(f"what answered at {self._place} with {response.status_code} is not gigarouter; check --url")
        return found

    async def text(self, path: str, **query: object) -> str:
        """The text of a good answer.

        Raises:
            Refused: There is none.
        """
        return (await self._send("GET", path, None, query)).text

    async def everything(self, path: str, **query: object) -> list[Json]:
        """All pages of a list.

        Raises:
            Refused: One of them is not there.
        """
        found: list[Json] = []
        query = {"limit": PAGE, **query}
        while True:
            page = await self.ask("GET", path, None, **query)
            found += page["data"]
            if not page["has_more"]:
                return found
            query |= {"page": page["next_page"]} if "next_page" in page else {"after": page["last_id"]}

    async def _send(self, method: str, path: str, body: Json | None, query: Mapping[str, object]) -> httpx2.Response:
        params = {name: str(value) for name, value in query.items() if value is not None}
        try:
            response = await self._client.request(method, path, json=body, params=params)
        except httpx2.TimeoutException:
            raise Refused(f"no answer came from {self._place} in time; --timeout sets another limit") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise Refused(f"{self._place} cannot be asked ({reason}). Is it running?") from None
        if response.status_code != 200:
            raise _refusal(response, OWN.get(path, ""))
        return response


def _json_of(response: httpx2.Response) -> Json | None:
    try:
        found = response.json()
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _refusal(response: httpx2.Response, of_all: str) -> Refused:
    error = (_json_of(response) or {}).get("error")
    if not isinstance(error, dict):
        return Refused(f"what answered with {response.status_code} is not gigarouter; check --url")
    wait = response.headers.get("retry-after")
    hint = f" Try again in {wait} s." if wait else ""
    if error.get("code") == "key_not_allowed" and of_all:
        hint = f" A key for admin has nothing of its own: {of_all}."
    client_error = response.status_code in (400, 404, 413)
    return Refused(f"{error.get('message')}{hint}", BAD_INPUT if client_error else FAILED)


@asynccontextmanager
async def router_of(options: argparse.Namespace) -> AsyncIterator[Router]:
    """The router that the options name.

    Raises:
        AccountsError: The database that they name cannot be used.
        AccountsUnavailable: It does not answer.
    """
    if options.database is None:
        async with httpx2.AsyncClient(base_url=options.url, headers=headers(), timeout=options.timeout) as client:
            yield Router(client, options.url)
        return
    from router.accounts.local import opened_app

    with opened_app(options.database, actor()) as app:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(base_url="http://database", transport=transport) as client:
            yield Router(client, "the database")


def require_own_key(asked: str | None, options: argparse.Namespace, what: str) -> None:
    """Where nothing is named, it is what the key that is used has; a database is used without one.

    Raises:
        Refused: Nothing is named.
    """
    if asked is None and options.database is not None:
        raise Refused(f"name {what} by its id, since --database is used without a key", BAD_INPUT)


def actor() -> str:
    """Who is written into the audit log as having run a command."""
    try:
        return f"command:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"command:{os.getuid()}"  # a user without a name, as in a container


def add_place(parser: argparse.ArgumentParser) -> None:
    """The options that say whom to ask and how to print."""
    parser.add_argument(
        "--url", type=address, default=default_url(), help=f"of the router (default: {URL_VARIABLE}, or {URL})"
    )
    parser.add_argument(
        "--database",
        metavar="URL",
        help="work on this database itself, without a router; environment takes the URL in GIGAROUTER_DATABASE_URL",
    )
    parser.add_argument("--timeout", type=seconds, default=TIMEOUT_S, metavar="SECONDS", help="maximum wait")
    parser.add_argument("--json", action="store_true", help="print what the router answers, as it is")


def run(options: argparse.Namespace, work: Callable[[Router, argparse.Namespace], Awaitable[None]]) -> int:
    """Do ``work`` with the router that the options name; returns the exit status."""

    async def working() -> None:
        async with router_of(options) as router:
            await work(router, options)

    return reported(lambda: asyncio.run(working()))


def reported(work: Callable[[], None]) -> int:
    """Do ``work``; returns the exit status, and prints why it was not done."""
    try:
        work()
    except Refused as refused:
        print(f"error: {refused}", file=sys.stderr)
        return refused.status
    except AccountsError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except AccountsUnavailable as error:
        from accounts.failures import reason_of  # with SQLAlchemy, which no other command waits for

        print(f"error: {reason_of(error)}", file=sys.stderr)
        return FAILED
    return 0


def show(found: Json | Sequence[Json], options: argparse.Namespace, lines: Sequence[str]) -> None:
    """Print what was found: as JSON where that is asked for, else ``lines``."""
    print(json.dumps(found, indent=2, ensure_ascii=False) if options.json else "\n".join(lines))


def facts(pairs: Mapping[str, object]) -> list[str]:
    """Lines of names and values; what is None is left out."""
    told = {name: value for name, value in pairs.items() if value is not None}
    width = max(map(len, told))
    return [f"{name.ljust(width)}  {value}" for name, value in told.items()]


def when(at: int | None) -> str | None:
    """A time in seconds since 1970, for people."""
    return None if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}Z"
