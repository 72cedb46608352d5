"""``gigarouter accounts``: the database of accounts, and the organisations and accounts in it.

    gigarouter accounts migrate --database environment
    gigarouter accounts bootstrap --database environment      prints the key by which all others are made
    gigarouter accounts add-organisation "Example"
    gigarouter accounts create --organisation org_... --name cameras
    gigarouter accounts check --database environment          adds everything up again

``migrate``, ``bootstrap`` and ``check`` work on the database itself; the others ask a router, or do with --database.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

from gigarouter.ask import FAILED
from gigarouter.management import WHERE, Refused, Router, add_place, facts, reported, run, show, when
from gigarouter.table import table

Json = dict[str, Any]

TITLES = ("ACCOUNT", "ORGANISATION", "NAME", "PREPAID", "STATE")
OF_ORGANISATIONS = ("ORGANISATION", "NAME", "STATE")
OF_AUDIT = ("WHEN", "WHO", "WHAT", "OF", "DETAILS")
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What argparse gives for adding commands; its name is not public."""
ON_DATABASE = ("migrate", "bootstrap", "check")


def parser(program: str = "gigarouter accounts") -> argparse.ArgumentParser:
    """What reads the arguments of a program of this name."""
    parser = argparse.ArgumentParser(prog=program, description="Manage accounts and their database.", epilog=WHERE)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_on_database(commands)
    _add_of_accounts(commands)
    _add_of_organisations(commands)
    audit = commands.add_parser("audit", help="print who changed what, the newest first")
    audit.add_argument("subject", nargs="?", metavar="ID", help="only what was done to this id")
    for name, one in commands.choices.items():
        if name not in ON_DATABASE:
            add_place(one)
    return parser


def _add_on_database(commands: Commands) -> None:
    summaries = {
        "migrate": "bring a database to the version of this program",
        "bootstrap": "make a key that manages all accounts, and print its secret once",
        "check": "add everything up again; 1 if something differs",
    }
    for name in ON_DATABASE:
        one = commands.add_parser(name, help=summaries[name])
        one.add_argument(
            "--database", default="environment", metavar="URL", help="(default: that in GIGAROUTER_DATABASE_URL)"
        )
        one.add_argument("--json", action="store_true", help="print JSON")
    commands.choices["migrate"].add_argument(
        "--back-to", type=older, metavar="VERSION", help="to this older one; what newer tables hold is lost"
    )


def _add_of_accounts(commands: Commands) -> None:
    listed = commands.add_parser("list", help="print the accounts")
    listed.add_argument("--organisation", metavar="ID", help="only those of this one")
    shown = commands.add_parser("show", help="print one account")
    shown.add_argument("account", metavar="ID")
    create = commands.add_parser("create", help="make an account; with --database it begins without free credit")
    create.add_argument("--organisation", required=True, metavar="ID", help="whose account it is")
    create.add_argument("--name", required=True, help="for people")
    create.add_argument("--postpaid", action="store_true", help="its balance may go below zero")
    update = commands.add_parser("update", help="change an account")
    update.add_argument("account", metavar="ID")
    update.add_argument("--name", help="for people")
    update.add_argument("--prepaid", action=argparse.BooleanOptionalAction, default=None, help="refuse without credits")
    close = commands.add_parser("close", help="close an account, which ends its keys")
    close.add_argument("account", metavar="ID")


def _add_of_organisations(commands: Commands) -> None:
    commands.add_parser("organisations", help="print the organisations")
    add = commands.add_parser("add-organisation", help="make an organisation")
    add.add_argument("name", help="for people")
    end = commands.add_parser("close-organisation", help="close an organisation with all its accounts")
    end.add_argument("organisation", metavar="ID")


def main(arguments: Sequence[str] | None = None, program: str = "gigarouter accounts") -> int:
    """Do what is asked for, and return the exit status."""
    options = parser(program).parse_args(arguments)
    if options.command in ON_DATABASE:
        work = {"migrate": _migrate, "bootstrap": _bootstrap, "check": _check}[options.command]
        return reported(lambda: work(options))
    return run(options, {"list": _list, "show": _show, "create": _create, "update": _update, "close": _close,
                         "organisations": _organisations, "add-organisation": _add_organisation,
                         "close-organisation": _close_organisation, "audit": _audit}[options.command])  # fmt: skip


# On the database itself


def older(text: str) -> str:
    """An argument that is a version, as ``0001``; nobody removes all tables by a word.

    Raises:
        ArgumentTypeError: It is none.
    """
    if not re.fullmatch("[0-9]{4}", text):
        raise argparse.ArgumentTypeError("must be a version, as 0001")
    return text


def _migrate(options: argparse.Namespace) -> None:
    from accounts.database import open_database
    from accounts.migrate import downgrade, upgrade, version_of

    database = open_database(options.database)
    try:
        if options.back_to is None:
            upgrade(database)
        else:
            downgrade(database, options.back_to)
        version = version_of(database)
    finally:
        database.close()
    show({"object": "accounts.version", "version": version}, options, [f"the database has version {version}"])


def _bootstrap(options: argparse.Namespace) -> None:
    from router.accounts.local import new_admin_key

    made = new_admin_key(options.database)
    if options.json:
        print(json.dumps(made, indent=2))
        return
    print(f"{made['id']}: it manages all accounts. This is the only time that its secret is shown.", file=sys.stderr)
    print(made["secret"])


def _check(options: argparse.Namespace) -> None:
    from accounts.checking import differences
    from accounts.database import open_database
    from accounts.migrate import require_current

    database = open_database(options.database, is_there=True)
    try:
        require_current(database)
        found = differences(database)
    finally:
        database.close()
    show({"object": "accounts.check", "differences": found}, options, found or ["everything adds up"])
    if found:
        raise Refused(f"{len(found)} sums differ", FAILED)


# Through the routes


async def _list(router: Router, options: argparse.Namespace) -> None:
    found = await router.everything("/v1/admin/accounts", organisation=options.organisation)
    rows = [(one["id"], one["organisation"], one["name"], _yes(one["prepaid"]), _state(one)) for one in found]
    show(found, options, table(TITLES, rows))


async def _show(router: Router, options: argparse.Namespace) -> None:
    _show_account(await router.ask("GET", f"/v1/admin/accounts/{options.account}"), options)


async def _create(router: Router, options: argparse.Namespace) -> None:
    body = {"organisation": options.organisation, "name": options.name, "prepaid": not options.postpaid}
    _show_account(await router.ask("POST", "/v1/admin/accounts", body), options)


async def _update(router: Router, options: argparse.Namespace) -> None:
    named = {"name": options.name, "prepaid": options.prepaid}
    body = {name: value for name, value in named.items() if value is not None}
    _show_account(await router.ask("PATCH", f"/v1/admin/accounts/{options.account}", body), options)


async def _close(router: Router, options: argparse.Namespace) -> None:
    _show_account(await router.ask("DELETE", f"/v1/admin/accounts/{options.account}"), options)


async def _organisations(router: Router, options: argparse.Namespace) -> None:
    found = await router.everything("/v1/admin/organisations")
    show(found, options, table(OF_ORGANISATIONS, [(one["id"], one["name"], _state(one)) for one in found]))


async def _add_organisation(router: Router, options: argparse.Namespace) -> None:
    made = await router.ask("POST", "/v1/admin/organisations", {"name": options.name})
    show(made, options, [made["id"]])


async def _close_organisation(router: Router, options: argparse.Namespace) -> None:
    closed = await router.ask("DELETE", f"/v1/admin/organisations/{options.organisation}")
    show(closed, options, [f"{closed['id']} is closed"])


async def _audit(router: Router, options: argparse.Namespace) -> None:
    found = await router.everything("/v1/admin/audit", subject=options.subject)
    rows = [
        (when(one["created_at"]) or "", one["actor"], one["action"], one["subject"], json.dumps(one["details"]))
        for one in found
    ]
    show(found, options, table(OF_AUDIT, rows))


def _show_account(account: Json, options: argparse.Namespace) -> None:
    named = {
        "account": account["id"],
        "organisation": account["organisation"],
        "name": account["name"],
        "prepaid": _yes(account["prepaid"]),
        "created": when(account["created_at"]),
        "closed": when(account["closed_at"]),
    }
    show(account, options, facts(named))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _state(found: Json) -> str:
    return "open" if found["closed_at"] is None else "closed"


if __name__ == "__main__":
    sys.exit(main())
