"""``gigarouter usage``: what was used, by day, model, key and account.

gigarouter usage                                       of the account of the key in GIGAROUTER_API_KEY
gigarouter usage --by day,model --start 2026-11-01
gigarouter usage --account acct_... --by key --csv > usage.csv
gigarouter usage --all --by account
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from accounts.usage_rows import GROUPS
from gigarouter.management import WHERE, Router, add_place, run, show
from gigarouter.table import table

Json = dict[str, Any]

COUNTS = ("requests", "failed", "images", "cached_images", "prompt_tokens", "completion_tokens")
TITLES = ("REQUESTS", "FAILED", "IMAGES", "CACHED", "TOKENS IN", "TOKENS OUT", "DOLLARS")


def parser(program: str = "gigarouter usage") -> argparse.ArgumentParser:
    """What reads the arguments of a program of this name."""
    parser = argparse.ArgumentParser(prog=program, description="Print what was used, and what it cost.", epilog=WHERE)
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--account", metavar="ID", help="of this account, instead of that of the key used here")
    whose.add_argument("--all", action="store_true", help="of all accounts")
    parser.add_argument("--by", default="day", help=f"some of {','.join(GROUPS)} (default: day)")
    parser.add_argument("--start", metavar="DAY", help="the first day in UTC (default: 30 days in all)")
    parser.add_argument("--end", metavar="DAY", help="the last day in UTC (default: today)")
    parser.add_argument("--csv", action="store_true", help="print CSV")
    add_place(parser)
    return parser


def main(arguments: Sequence[str] | None = None, program: str = "gigarouter usage") -> int:
    """Print it, and return the exit status."""
    own = parser(program)
    options = own.parse_args(arguments)
    if options.csv and options.json:
        own.error("--csv and --json exclude each other")
    return run(options, _print)


async def _print(router: Router, options: argparse.Namespace) -> None:
    is_own = options.account is None and not options.all and options.database is None
    path = "/v1/usage" if is_own else "/v1/admin/usage"
    query = {"group_by": options.by, "start": options.start, "end": options.end, "account": options.account}
    if options.csv:
        print(await router.text(path, format="csv", **query), end="")
        return
    found = await router.everything(path, **query)
    groups = [group for group in GROUPS if group in options.by.split(",")]
    titles = (*(group.upper() for group in groups), *TITLES)
    show(found, options, table(titles, [_row(one, groups) for one in found]))


def _row(used: Json, groups: Sequence[str]) -> tuple[str, ...]:
    return (*(used[group] for group in groups), *(str(used[count]) for count in COUNTS), used["cost"])


if __name__ == "__main__":
    sys.exit(main())
