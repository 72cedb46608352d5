"""``gigarouter keys``: makes, shows, changes, replaces and revokes the keys of accounts.

    gigarouter keys create --account acct_... --name "camera at the gate" --model blip-large --budget day=1.50
    gigarouter keys list --account acct_...
    gigarouter keys update key_... --limit requests=60 --limit blip-large:images=600 --expires 90d
    gigarouter keys rotate key_... --grace 1h
    gigarouter keys revoke key_...

``gigarouter keys show`` without an id tells of the key in GIGAROUTER_API_KEY itself.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from accounts.money import nano_of
from accounts.types import PERIODS, SCOPES
from gigarouter.management import WHERE, Router, add_place, facts, require_own_key, run, show, when
from gigarouter.table import table

Json = dict[str, Any]

LIMITS = ("requests", "images", "tokens", "concurrent")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
NOTHING = "none"
"""What takes a restriction away."""
TITLES = ("KEY", "ACCOUNT", "NAME", "HINT", "SCOPES", "STATE", "LAST USED")


def parser(program: str = "gigarouter keys") -> argparse.ArgumentParser:
    """What reads the arguments of a program of this name."""
    parser = argparse.ArgumentParser(prog=program, description="Manage the API keys of accounts.", epilog=WHERE)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    create = commands.add_parser("create", help="make a key, and print its secret once")
    create.add_argument("--account", required=True, metavar="ID", help="whose key it is")
    create.add_argument("--name", required=True, help="for people")
    _add_allowed(create)
    listed = commands.add_parser("list", help="print the keys")
    listed.add_argument("--account", metavar="ID", help="only those of this account")
    shown = commands.add_parser("show", help="print one key; without an id, the one that is used here")
    shown.add_argument("key", nargs="?", metavar="ID")
    update = commands.add_parser("update", help="change what a key allows; what is not named stays as it is")
    rotate = commands.add_parser("rotate", help="give a key another secret, and print it once")
    revoke = commands.add_parser("revoke", help="make a key good for nothing, at once and for ever")
    for one in (update, rotate, revoke):
        one.add_argument("key", metavar="ID")
    update.add_argument("--name", help="for people")
    _add_allowed(update)
    rotate.add_argument("--grace", type=duration, default=0, help="how long the one before still holds, as 1h or 7d")
    for one in commands.choices.values():
        add_place(one)
    return parser


def main(arguments: Sequence[str] | None = None, program: str = "gigarouter keys") -> int:
    """Do what is asked for, and return the exit status."""
    options = parser(program).parse_args(arguments)
    return run(options, {"create": _create, "list": _list, "show": _show, "update": _update, "rotate": _rotate,
                         "revoke": _revoke}[options.command])  # fmt: skip


async def _create(router: Router, options: argparse.Namespace) -> None:
    body = {"account": options.account, "name": options.name, **_allowed(options)}
    _show_secret(await router.ask("POST", "/v1/admin/keys", body), options)


async def _list(router: Router, options: argparse.Namespace) -> None:
    found = await router.everything("/v1/admin/keys", account=options.account)
    show(found, options, table(TITLES, [_row(key) for key in found]))


async def _show(router: Router, options: argparse.Namespace) -> None:
    require_own_key(options.key, options, "a key")
    path = "/v1/key" if options.key is None else f"/v1/admin/keys/{options.key}"
    _show_key(await router.ask("GET", path), options)


async def _update(router: Router, options: argparse.Namespace) -> None:
    body = {**({} if options.name is None else {"name": options.name}), **_allowed(options)}
    _show_key(await router.ask("PATCH", f"/v1/admin/keys/{options.key}", body), options)


async def _rotate(router: Router, options: argparse.Namespace) -> None:
    body = {"grace_s": options.grace}
    _show_secret(await router.ask("POST", f"/v1/admin/keys/{options.key}/rotate", body), options)


async def _revoke(router: Router, options: argparse.Namespace) -> None:
    _show_key(await router.ask("DELETE", f"/v1/admin/keys/{options.key}"), options)


def _show_key(key: Json, options: argparse.Namespace) -> None:
    show(key, options, facts(_facts_of(key)))


def _show_secret(key: Json, options: argparse.Namespace) -> None:
    """The secret alone on standard output, for scripts; what people want to know beside it, on the other."""
    if options.json:
        show(key, options, [])
        return
    print(f"{key['id']}: this is the only time that its secret is shown.", file=sys.stderr)
    print(key["secret"])


def _row(key: Json) -> tuple[str, ...]:
    scopes = ",".join(key["scopes"])
    used = when(key["last_used_at"]) or "never"
    return (key["id"], key["account"], key["name"], key["hint"], scopes, _state(key), used)


def _state(key: Json) -> str:
    if key["revoked_at"] is not None:
        return "revoked"
    expires_at = key["expires_at"]
    return "good" if expires_at is None else "expired" if expires_at <= time.time() else f"until {when(expires_at)}"


def _facts_of(key: Json) -> Mapping[str, object]:
    limits = [
        f"{model}:{name}={limit}"
        for model, of_model in key["limits"].items()
        for name, limit in of_model.items()
        if limit is not None
    ]
    budgets = [f"{period}={amount}" for period, amount in key["budgets"].items()]
    lists = {name: ", ".join(key[name]) if key[name] else None for name in ("scopes", "models", "tasks", "origins")}
    return {
        "key": key["id"],
        "account": key["account"],
        "name": key["name"],
        "hint": key["hint"],
        "state": _state(key),
        **lists,
        "limits": ", ".join(limits) or None,
        "budgets": ", ".join(budgets) or None,
        "created": when(key["created_at"]),
        "revoked": when(key["revoked_at"]),
        "last used": when(key["last_used_at"]) or "never",
    }


# What a key allows


def _add_allowed(parser: argparse.ArgumentParser) -> None:
    """The options that say what a key allows. Each may be given several times."""
    add = parser.add_argument
    add("--scope", action="append", choices=SCOPES, help="what it is for (default of a new key: inference)")
    add("--model", action="append", help=f"a model that it may ask; {NOTHING} for all")
    add("--task", action="append", help=f"a task that it may ask for; {NOTHING} for all")
    add("--origin", action="append", help=f"a web page that may use it, as https://app.example.com; {NOTHING} for all")
    add(
        "--limit",
        action="append",
        type=limit,
        metavar="[MODEL:]WHAT=NUMBER",
        help=f"{', '.join(LIMITS[:-1])} a minute, or concurrent; {NOTHING} for no limit",
    )
    add(
        "--budget",
        action="append",
        type=budget,
        metavar="PERIOD=DOLLARS",
        help=f"the most that it may spend: {', '.join(PERIODS)}; {NOTHING} for no budget",
    )
    add(
        "--expires",
        type=expiry,
        metavar="WHEN",
        help=f"when a day in UTC begins, as 2026-12-31, a time from now as 90d, or {NOTHING}",
    )


def _allowed(options: argparse.Namespace) -> Json:
    """The fields of a body, as far as there are options for them."""
    found: Json = {}
    lists = {"scopes": options.scope, "models": options.model, "tasks": options.task, "origins": options.origin}
    for name, given in lists.items():
        if given is not None:
            found[name] = None if given == [NOTHING] else given
    if options.limit is not None:
        found["limits"] = _limits(options.limit)
    if options.budget is not None:
        found["budgets"] = dict(pair for pair in options.budget if pair)
    if options.expires is not None:
        found["expires_at"] = options.expires or None
    return found


def _limits(given: Sequence[tuple[str, str, int]]) -> Json:
    limits: Json = {}
    for model, name, number in filter(None, given):
        limits.setdefault(model, {})[name] = number
    return limits


def limit(text: str) -> tuple[str, str, int] | tuple[()]:
    """An argument as ``requests=60`` or ``blip-large:images=600``: model, what, and how much; or nothing.

    Raises:
        ArgumentTypeError: It is none of these.
    """
    if text == NOTHING:
        return ()
    what, _, number = text.rpartition("=")
    model, _, name = what.rpartition(":")
    if name not in LIMITS or not re.fullmatch("[0-9]{1,9}", number):
        raise argparse.ArgumentTypeError(f"must be WHAT=NUMBER or MODEL:WHAT=NUMBER, with one of {', '.join(LIMITS)}")
    return model or "*", name, int(number)


def budget(text: str) -> tuple[str, str] | tuple[()]:
    """An argument as ``day=1.50``: of which period, and how many dollars; or nothing.

    Raises:
        ArgumentTypeError: It is none of these.
    """
    if text == NOTHING:
        return ()
    period, _, dollars = text.partition("=")
    try:
        is_good = period in PERIODS and nano_of(dollars) >= 0
    except ValueError:
        is_good = False
    if not is_good:
        raise argparse.ArgumentTypeError(f"must be PERIOD=DOLLARS as day=1.50, with one of {', '.join(PERIODS)}")
    return period, dollars


def duration(text: str) -> int:
    """An argument as ``90s``, ``5m``, ``1h`` or ``7d``, in seconds.

    Raises:
        ArgumentTypeError: It is no such time.
    """
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError("must be a time as 90s, 5m, 1h or 7d")
    return int(found[1]) * UNITS[found[2]]


def expiry(text: str) -> int:
    """An argument that is a day in UTC or a time from now, in seconds since 1970; 0 for never.

    Raises:
        ArgumentTypeError: It is none of these, or past.
    """
    if text == NOTHING:
        return 0
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        try:
            day = date.fromisoformat(text)
        except ValueError:
            raise argparse.ArgumentTypeError("there is no such day") from None
        at = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
        if at <= time.time():
            raise argparse.ArgumentTypeError(
                "that day has begun, so that the key would have expired; revoke ends a key"
            )
        return at
    try:
        return int(time.time()) + duration(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or a day as 2026-12-31") from None


if __name__ == "__main__":
    sys.exit(main())
