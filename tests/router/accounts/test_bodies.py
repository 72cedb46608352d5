"""Bodies about accounts: what they become, and the path of what is wrong in them."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.types import KeySpec, Limits
from router.accounts.bodies import AccountBody, CreditBody, KeyBody, KeyChanges, RotationBody
from router.asgi.validation import validated
from vlm.errors import InvalidRequest

Json = dict[str, Any]

WHOLE: Json = {
    "account": "acct_1",
    "name": "camera at the gate",
    "scopes": ["inference", "monitor"],
    "models": ["blip-large"],
    "tasks": ["caption"],
    "origins": ["https://app.example.com", "http://localhost:3000"],
    "limits": {"*": {"requests": 60, "concurrent": 4}, "blip-large": {"images": 10.0}},
    "budgets": {"day": "1.5", "total": "100"},
    "expires_at": 1_800_000_000,
}
SPEC = KeySpec(
    name="camera at the gate",
    scopes=frozenset({"inference", "monitor"}),
    models=frozenset({"blip-large"}),
    tasks=frozenset({"caption"}),
    origins=frozenset({"https://app.example.com", "http://localhost:3000"}),
    limits={"*": Limits(requests=60, concurrent=4), "blip-large": Limits(images=10)},
    budgets={"day": 1_500_000_000, "total": 100_000_000_000},
    expires_at=1_800_000_000_000,
)


def test_a_whole_key() -> None:
    assert validated(KeyBody, WHOLE).spec == SPEC


def test_a_key_with_nothing_but_a_name_has_no_restrictions_and_asks_models() -> None:
    assert validated(KeyBody, {"account": "acct_1", "name": "n"}).spec == KeySpec("n")


def test_a_message_is_our_own() -> None:
    with pytest.raises(InvalidRequest) as caught:
        validated(KeyBody, {**WHOLE, "origins": ["example.com"]})
    wanted = "must be the origin of a web page as browsers send it, as https://app.example.com"
    assert caught.value.message == f"origins[0]: {wanted}."


def test_changes_leave_alone_what_they_do_not_name_and_null_takes_away() -> None:
    assert validated(KeyChanges, {}).on(SPEC) == SPEC
    changed = validated(KeyChanges, {"models": None, "expires_at": None, "budgets": {}, "limits": {}}).on(SPEC)
    assert (changed.models, changed.expires_at, changed.budgets, changed.limits) == (None, None, {}, {})
    assert (changed.name, changed.tasks, changed.origins) == (SPEC.name, SPEC.tasks, SPEC.origins)
    assert validated(KeyChanges, {"scopes": ["admin"]}).on(SPEC).scopes == {"admin"}


@pytest.mark.parametrize(
    ("field", "value", "param", "code"),
    [
        ("name", "", "name", "invalid_value"),
        ("name", None, "name", "invalid_type"),
        ("name", "a\nb", "name", "invalid_value"),
        ("name", "\x1b[31m", "name", "invalid_value"),
        ("name", "\ud800", "name", "invalid_value"),
        ("name", "x" * 201, "name", "string_above_max_length"),
        ("scopes", [], "scopes", "invalid_value"),
        ("scopes", ["root"], "scopes[0]", "invalid_value"),
        ("scopes", None, "scopes", "invalid_type"),
        ("models", [], "models", "invalid_value"),
        ("models", "blip-large", "models", "invalid_type"),
        ("models", ["m"] * 101, "models", "invalid_value"),
        ("origins", ["https://app.example.com/"], "origins[0]", "invalid_value"),
        ("origins", ["null"], "origins[0]", "invalid_value"),
        ("origins", ["*"], "origins[0]", "invalid_value"),
        ("limits", {"*": {"requests": 0}}, "limits.*.requests", "invalid_value"),
        ("limits", {"*": {"request": 1}}, "limits.*.request", "unsupported_parameter"),
        ("limits", {"*": {"requests": True}}, "limits.*.requests", "invalid_type"),
        ("limits", {"*": {"requests": 1.5}}, "limits.*.requests", "invalid_type"),
        ("budgets", {"day": 1}, "budgets.day", "invalid_type"),
        ("budgets", {"day": "-1"}, "budgets.day", "invalid_value"),
        ("budgets", {"day": "1e3"}, "budgets.day", "invalid_value"),
        ("budgets", {"day": "0.0000000001"}, "budgets.day", "invalid_value"),
        ("budgets", {"week": "1"}, "budgets.week", "unsupported_parameter"),
        ("expires_at", 1_800_000_000_000, "expires_at", "invalid_value"),
        ("expires_at", -1, "expires_at", "invalid_value"),
        ("expires", 1_800_000_000, "expires", "unsupported_parameter"),
        ("account", None, "account", "invalid_type"),
    ],
)
def test_what_is_wrong_is_named(field: str, value: object, param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        validated(KeyBody, {**WHOLE, field: value})
    assert (refused.value.param, refused.value.code) == (param, code), refused.value.message


def test_a_misspelt_key_is_told_what_was_probably_meant() -> None:
    with pytest.raises(InvalidRequest, match="Did you mean 'budgets'"):
        validated(KeyBody, {**WHOLE, "budget": {"day": "1"}})


@pytest.mark.parametrize("amount", ["0", "-0.0", "1,5", "", "1000000000", "NaN"])
def test_credits_are_amounts_other_than_0(amount: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        validated(CreditBody, {"account": "acct_1", "amount": amount})
    assert refused.value.param == "amount"


def test_other_names_of_a_model_mean_it() -> None:
    other = "microsoft/Florence-2-base"
    spec = validated(KeyBody, {**WHOLE, "models": [other, "mine"], "limits": {other: {"requests": 1}}}).spec
    assert spec.models == frozenset({"florence-2-base", "mine"})
    assert spec.limits == {"florence-2-base": Limits(requests=1)}


def test_defaults() -> None:
    assert validated(AccountBody, {"organisation": "org_1", "name": "n"}).prepaid
    assert validated(RotationBody, {}).grace_s == 0
    assert validated(CreditBody, {"account": "acct_1", "amount": "0.5"}).kind == "grant"
