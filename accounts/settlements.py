"""Settlements as JSON, as they are kept in files and beside stored answers. What is read was written here."""

from __future__ import annotations

from typing import Any

from accounts.types import Charge, Settlement

Json = dict[str, Any]


def settlement_json(settlement: Settlement) -> Json:
    """All of a settlement; what :func:`settlement_of` reads."""
    return {
        "hold": settlement.hold,
        "account": settlement.account,
        "key": settlement.key,
        "amount": settlement.amount,
        "charge": None if settlement.charge is None else _charge_json(settlement.charge),
        "outcome": settlement.outcome,
        "request_id": settlement.request_id,
        "at": settlement.at,
        "price_list": settlement.price_list,
    }


def settlement_of(json: Json) -> Settlement:
    """The settlement that was written as ``json``."""
    return Settlement(**{**json, "charge": None if json["charge"] is None else _charge_of(json["charge"])})


def _charge_json(charge: Charge) -> Json:
    return {
        "model": charge.model,
        "tasks": charge.tasks,
        "images": charge.images,
        "cached_images": charge.cached_images,
        "prompt_tokens": charge.prompt_tokens,
        "completion_tokens": charge.completion_tokens,
        "batch": charge.batch,
    }


def _charge_of(json: Json) -> Charge:
    return Charge(**{**json, "tasks": tuple(json["tasks"])})
