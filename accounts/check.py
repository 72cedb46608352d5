"""Adds the accounts up again: ``python -m accounts.check URL``, or the word ``environment`` for the URL."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing

from accounts.checking import differences
from accounts.database import open_database
from accounts.errors import AccountsError, AccountsUnavailable
from accounts.migrate import require_current


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what differs. Returns 0 where nothing does, 1 where something does, 2 where it cannot be told."""
    parser = argparse.ArgumentParser(prog="python -m accounts.check", description="Add the accounts up again.")
    parser.add_argument("url", help="URL of the database; environment takes that of GIGAROUTER_DATABASE_URL")
    try:
        with closing(open_database(parser.parse_args(arguments).url)) as database:
            require_current(database)
            found = differences(database)
    except (AccountsError, AccountsUnavailable) as error:
        print(f"accounts: {error.__cause__ or error}", file=sys.stderr)
        return 2
    print("\n".join(found or ["everything adds up"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
