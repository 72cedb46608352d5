"""The operations of keys and accounts, and their answers as types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from typing_extensions import TypedDict

from accounts.types import Scope
from accounts.usage_rows import Group
from router.accounts.bodies import (
    AccountBody,
    AccountChanges,
    CreditBody,
    KeyBody,
    KeyChanges,
    OrganisationBody,
    RotationBody,
)
from router.accounts.money_routes import ALL_GROUPS, OWN_GROUPS
from router.accounts.pages import DEFAULT_PAGE, MAX_PAGE
from router.accounts.usage_query import DEFAULT_DAYS
from router.openapi.answers import Count, UnixSeconds
from router.openapi.error_codes import OF_JSON, OF_ROUTES
from router.openapi.operation import JSON, Answer, Json, Operation, Parameter
from router.openapi.schemas import Says

Dollars = Annotated[str, Says("US dollars, as a decimal string.")]


class OrganisationObject(TypedDict):
    """To whom accounts belong."""

    id: str
    object: Literal["organisation"]
    name: str
    created_at: UnixSeconds
    closed_at: UnixSeconds | None


class AccountObject(TypedDict):
    """Who pays."""

    id: str
    object: Literal["account"]
    organisation: str
    name: str
    prepaid: Annotated[bool, Says("Whether requests are refused that its credits do not cover.")]
    created_at: UnixSeconds
    closed_at: UnixSeconds | None


class LimitsObject(TypedDict):
    """How much a key may ask for in a minute, and at the same time; null where there is no limit."""

    requests: Count | None
    images: Count | None
    tokens: Count | None
    concurrent: Count | None


class KeyObject(TypedDict):
    """A key, without its secret."""

    id: str
    object: Literal["key"]
    account: str
    name: str
    hint: Annotated[str, Says("The first characters of its secret.")]
    scopes: list[Scope]
    models: Annotated[list[str] | None, Says("Those that it may ask; null for all.")]
    tasks: Annotated[list[str] | None, Says("Those that it may ask for; null for all.")]
    origins: Annotated[list[str] | None, Says("Web pages that may use it; null for all that the server allows.")]
    limits: Annotated[dict[str, LimitsObject], Says("By model, and under * for all together.")]
    budgets: Annotated[dict[str, Dollars], Says("The most that it may spend, by day, month and total.")]
    created_at: UnixSeconds
    expires_at: UnixSeconds | None
    revoked_at: UnixSeconds | None
    last_used_at: Annotated[UnixSeconds | None, Says("Exact to a minute.")]


class NewKeyObject(KeyObject):
    """A key with its secret, which is told once."""

    secret: str


class AuditEntryObject(TypedDict):
    """A change of an organisation, an account or a key."""

    id: str
    object: Literal["audit.entry"]
    created_at: UnixSeconds
    actor: Annotated[str, Says("A key's id, or command: and who ran it.")]
    action: Annotated[str, Says("As key.revoke.")]
    subject: Annotated[str, Says("The id of what was changed.")]
    details: dict[str, Any]


class _Page(TypedDict):
    object: Literal["list"]
    has_more: Annotated[bool, Says("Whether more come behind them.")]
    first_id: str | None
    last_id: str | None


class OrganisationPage(_Page):
    """Some of the organisations."""

    data: list[OrganisationObject]


class AccountPage(_Page):
    """Some of the accounts."""

    data: list[AccountObject]


class KeyPage(_Page):
    """Some of the keys."""

    data: list[KeyObject]


class AuditPage(_Page):
    """Some of the changes."""

    data: list[AuditEntryObject]


class CreditsObject(TypedDict):
    """What an account has."""

    object: Literal["credits"]
    account: str
    currency: Literal["usd"]
    prepaid: bool
    balance: Annotated[Dollars, Says("What was given minus what was charged, in US dollars.")]
    held: Annotated[Dollars, Says("What is kept for requests that are under way.")]
    available: Annotated[Dollars, Says("The balance without what is held.")]


class BudgetObject(TypedDict):
    """What is left of a budget of the key."""

    limit: Dollars
    spent: Dollars
    held: Annotated[Dollars, Says("What is kept for requests that are under way.")]
    available: Dollars
    resets_at: Annotated[UnixSeconds | None, Says("When it begins anew; null if it never does.")]


class OwnCreditsObject(CreditsObject):
    """What the account of the key has, and what is left of the key's budgets."""

    budgets: Annotated[dict[str, BudgetObject], Says("By day, month and total, as far as there are any.")]


class CreditsEntryObject(TypedDict):
    """A line of the ledger, which never changes. What is not a charge has null in most keys."""

    id: str
    object: Literal["credits.entry"]
    created_at: UnixSeconds
    account: str
    key: str | None
    kind: Literal["charge", "sign_up", "grant", "refund"]
    amount: Annotated[Dollars, Says("US dollars; charges are negative.")]
    request_id: str | None
    outcome: Annotated[str | None, Says("completed, or abandoned by the client.")]
    model: str | None
    tasks: list[str] | None
    images: Count | None
    cached_images: Count | None
    prompt_tokens: Count | None
    completion_tokens: Count | None
    batch: bool | None
    price_list: Annotated[str | None, Says("The digest of the prices that the amount follows.")]
    note: str | None


class CreditsEntryPage(_Page):
    """Some of the ledger, the newest first."""

    data: list[CreditsEntryObject]


class UsageObject(TypedDict):
    """What was used; null for what rows are not told apart by."""

    object: Literal["usage"]
    day: str | None
    model: str | None
    key: str | None
    account: str | None
    requests: Annotated[Count, Says("Those that were charged, at whatever price.")]
    failed: Annotated[Count, Says("Those that were not, beside them.")]
    images: Count
    cached_images: Count
    prompt_tokens: Count
    completion_tokens: Count
    cost: Dollars


class UsagePage(TypedDict):
    """Some of the usage, the oldest day first."""

    object: Literal["list"]
    start: str
    end: str
    group_by: list[Group]
    data: list[UsageObject]
    has_more: bool
    next_page: Annotated[str | None, Says("What to send as page for the rows that follow.")]


TAG = "accounts"
WHERE = "Where the server keeps accounts."
ADMIN = f"{WHERE} For keys with the scope admin."
OWN = f"{WHERE} Of the account of the key that asks."
OFF = "accounts_not_enabled"
BODY = "Unknown fields are refused, and null means no restriction."
ID = Parameter("id", "path", "Its id.", {"type": "string"})
LIMIT = Parameter(
    "limit",
    "query",
    "Number of things in the page.",
    {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE},
)
AFTER = Parameter("after", "query", "The id of the thing behind which the page begins.", {"type": "string"})


def _operation(operation_id: str, summary: str, answer: Any, **rest: Any) -> Operation:
    fields = {"description": ADMIN, "codes": (*OF_ROUTES, OFF, "timeout"), **rest}
    answers = {200: Answer("It was done, or found.", {JSON: answer}, headers=("cache-control",))}
    return Operation(id=operation_id, summary=summary, tag=TAG, answers=answers, **fields)


def _find(operation_id: str, summary: str, answer: Any) -> Operation:
    return _operation(operation_id, summary, answer, parameters=(ID,), codes=(*OF_ROUTES, OFF, "not_found", "timeout"))


def _list(operation_id: str, summary: str, answer: Any, *filters: Parameter, **rest: Any) -> Operation:
    codes = (*OF_ROUTES, OFF, "invalid_value", "not_found", "timeout")
    return _operation(operation_id, summary, answer, parameters=(*filters, LIMIT, AFTER), codes=codes, **rest)


def _change(operation_id: str, summary: str, answer: Any, body: Any = None, **rest: Any) -> Operation:
    codes = (*OF_ROUTES, OFF, "not_found", "conflict", "timeout")
    asked: Json = {} if body is None else {"body": {JSON: body}, "body_description": BODY}
    of_body = () if body is None else OF_JSON
    return _operation(operation_id, summary, answer, codes=(*codes, *of_body), **asked, **rest)


def _usage(operation_id: str, summary: str, groups: Sequence[Group], *filters: Parameter, **rest: Any) -> Operation:
    content = {JSON: UsagePage, "text/csv": {"type": "string"}}
    answer = Answer("What was used.", content, headers=("cache-control",))
    day = {"type": "string", "format": "date"}
    parameters = (
        Parameter("start", "query", f"The first day in UTC; {DEFAULT_DAYS} days in all by default.", day),
        Parameter("end", "query", "The last day in UTC; today by default.", day),
        Parameter("group_by", "query", f"Some of {', '.join(groups)}, by commas; day by default.", {"type": "string"}),
        Parameter("format", "query", "csv has all rows.", {"enum": ["json", "csv"], "default": "json"}),
        LIMIT,
        Parameter("page", "query", "The next_page of the page before.", {"type": "string"}),
    )
    codes = (*OF_ROUTES, OFF, "invalid_value", "timeout")
    fields = {"description": ADMIN, "parameters": (*parameters, *filters), "codes": codes, **rest}
    return Operation(id=operation_id, summary=summary, tag=TAG, answers={200: answer}, **fields)


def _filter(name: str, description: str) -> Parameter:
    return Parameter(name, "query", description, {"type": "string"})


ACCOUNTS: Mapping[str, Operation] = {
    one.id: one
    for one in (
        _operation(
            "retrieve_own_key",
            "What the key allows that asks",
            KeyObject,
            description=f"{WHERE} With the limits that hold for it. For every good key.",
        ),
        _operation(
            "retrieve_own_credits",
            "What the key's account has, and what is left of the key's budgets",
            OwnCreditsObject,
            description=OWN,
        ),
        _list("list_own_entries", "The ledger of the key's account", CreditsEntryPage, description=OWN),
        _usage("list_own_usage", "What the key's account used", OWN_GROUPS, description=OWN),
        _change("give_credits", "Give credits to an account", CreditsObject, CreditBody, method="POST"),
        _find("retrieve_credits", "What an account has", CreditsObject),
        _list("list_entries", "The ledger of an account", CreditsEntryPage, ID),
        _usage("list_usage", "What accounts used", ALL_GROUPS, _filter("account", "Only what this one used.")),
        _change("create_organisation", "Make an organisation", OrganisationObject, OrganisationBody, method="POST"),
        _list("list_organisations", "The organisations", OrganisationPage),
        _find("retrieve_organisation", "One organisation", OrganisationObject),
        _change(
            "close_organisation",
            "Close an organisation with all its accounts",
            OrganisationObject,
            method="DELETE",
            parameters=(ID,),
        ),
        _change("create_account", "Make an account", AccountObject, AccountBody, method="POST"),
        _list("list_accounts", "The accounts", AccountPage, _filter("organisation", "Only those of this one.")),
        _find("retrieve_account", "One account", AccountObject),
        _change("update_account", "Change an account", AccountObject, AccountChanges, method="PATCH", parameters=(ID,)),
        _change(
            "close_account",
            "Close an account, which ends its keys",
            AccountObject,
            method="DELETE",
            parameters=(ID,),
        ),
        _change("create_key", "Make a key, and tell its secret", NewKeyObject, KeyBody, method="POST"),
        _list("list_keys", "The keys", KeyPage, _filter("account", "Only those of this one.")),
        _find("retrieve_key", "One key", KeyObject),
        _change("update_key", "Change what a key allows", KeyObject, KeyChanges, method="PATCH", parameters=(ID,)),
        _change(
            "rotate_key",
            "Give a key another secret, and tell it",
            NewKeyObject,
            RotationBody,
            method="POST",
            parameters=(ID,),
        ),
        _change("revoke_key", "Make a key good for nothing", KeyObject, method="DELETE", parameters=(ID,)),
        _list("list_audit", "Who changed what", AuditPage, _filter("subject", "Only what was done to this id.")),
    )
}
"""By the name of the route."""
