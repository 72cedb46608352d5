"""Amounts of money: integers of nano-dollars inside, decimal strings of US dollars outside."""

from __future__ import annotations

import re
from decimal import Decimal

Nano = int
"""Nano-dollars: 1,000,000,000 are one US dollar."""

NANO_PER_DOLLAR = 1_000_000_000
PER_THOUSAND = NANO_PER_DOLLAR // 1000
"""Nano-dollars a piece, of one dollar for a thousand of them."""

_DOLLARS = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?")


def nano_of(dollars: str) -> Nano:
    """The amount that a decimal string of US dollars names, exactly.

    Raises:
        ValueError: It is not a decimal number with at most nine digits before and after the point.
    """
    if not _DOLLARS.fullmatch(dollars):
        raise ValueError('must be a decimal string in US dollars, as "0.094"')
    return int(Decimal(dollars) * NANO_PER_DOLLAR)


def number_of(amount: Nano) -> float:
    """The amount as a number of US dollars, for answers whose readers expect one: the nearest that there is."""
    return amount / NANO_PER_DOLLAR


def dollars_of(amount: Nano) -> str:
    """The amount as a decimal string of US dollars, without zeros at its end."""
    sign, whole = "-" if amount < 0 else "", abs(amount)
    cents, rest = divmod(whole, NANO_PER_DOLLAR)
    text = f"{cents}.{rest:09}".rstrip("0").rstrip(".")
    return sign + text
