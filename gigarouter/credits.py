"""``gigarouter credits``: what accounts have, what became of it, and how they get more.

gigarouter credits show                      of the account of the key in GIGAROUTER_API_KEY
gigarouter credits show acct_...
gigarouter credits grant acct_... 25.00 --note "invoice 7"
gigarouter credits refund acct_... 0.12
gigarouter credits entries acct_... --limit 20
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from accounts.money import nano_of
from gigarouter.management import WHERE, Router, add_place, facts, require_own_key, run, show, when
from gigarouter.table import table

Json = dict[str, Any]

TITLES = ("WHEN", "KIND", "DOLLARS", "KEY", "MODEL", "REQUEST OR NOTE")
MOST = 500


def parser(program: str = "gigarouter credits") -> argparse.ArgumentParser:
    """What reads the arguments of a program of this name."""
    parser = argparse.ArgumentParser(prog=program, description="Show and give the credits of accounts.", epilog=WHERE)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shown = commands.add_parser("show", help="print what an account has; without an id, that of the key used here")
    shown.add_argument("account", nargs="?", metavar="ID")
    entries = commands.add_parser("entries", help="print the ledger of an account, the newest first")
    entries.add_argument("account", nargs="?", metavar="ID")
    entries.add_argument("--limit", type=int, default=100, help=f"how many lines, at most {MOST} (default: 100)")
    grant = commands.add_parser("grant", help="give credits to an account; below zero, take some back")
    refund = commands.add_parser("refund", help="give back what requests have cost")
    for one in (grant, refund):
        one.add_argument("account", metavar="ID")
        one.add_argument("amount", type=dollars, help="in US dollars, as 0.25")
        one.add_argument("--note", default="", help="why, for people")
    for one in (shown, entries, grant, refund):
        add_place(one)
    return parser


def main(arguments: Sequence[str] | None = None, program: str = "gigarouter credits") -> int:
    """Do what is asked for, and return the exit status."""
    options = parser(program).parse_args(arguments)
    return run(options, {"show": _show, "entries": _entries, "grant": _give, "refund": _give}[options.command])


async def _show(router: Router, options: argparse.Namespace) -> None:
    require_own_key(options.account, options, "an account")
    path = "/v1/credits" if options.account is None else f"/v1/admin/credits/{options.account}"
    _show_credits(await router.ask("GET", path), options)


async def _give(router: Router, options: argparse.Namespace) -> None:
    body = {"account": options.account, "kind": options.command, "amount": options.amount, "note": options.note}
    _show_credits(await router.ask("POST", "/v1/admin/credits", body), options)


async def _entries(router: Router, options: argparse.Namespace) -> None:
    require_own_key(options.account, options, "an account")
    path = "/v1/credits/entries" if options.account is None else f"/v1/admin/credits/{options.account}/entries"
    found = (await router.ask("GET", path, None, limit=options.limit))["data"]
    show(found, options, table(TITLES, [_row(one) for one in found]))


def _row(entry: Json) -> tuple[str, ...]:
    about = entry["request_id"] or entry["note"] or ""
    at = when(entry["created_at"]) or ""
    return (at, entry["kind"], entry["amount"], entry["key"] or "", entry["model"] or "", about)


def _show_credits(credits_: Json, options: argparse.Namespace) -> None:
    budgets = {
        f"left this {period}" if period != "total" else "left in all": f"{one['available']} of {one['limit']}"
        for period, one in credits_.get("budgets", {}).items()
    }
    named = {
        "account": credits_["account"],
        "balance": f"{credits_['balance']} US dollars",
        "held": credits_["held"],
        "available": credits_["available"] if credits_["prepaid"] else "as much as it likes, which is billed later",
        **budgets,
    }
    show(credits_, options, facts(named))


def dollars(text: str) -> str:
    """An argument that is an amount of US dollars.

    Raises:
        ArgumentTypeError: It is none, or nothing.
    """
    try:
        amount = nano_of(text)
    except ValueError:
        amount = 0
    if amount == 0:
        raise argparse.ArgumentTypeError("must be an amount in US dollars, as 0.25")
    return text


if __name__ == "__main__":
    sys.exit(main())
