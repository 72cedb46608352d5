"""The tables. Migrations make them (:mod:`accounts.migrations`); a test holds both against each other.

What is only ever added to is ``entries`` and ``audit``. All else can be told from them, and is kept because asking for
it must not take longer as they grow: ``balances`` and ``spending`` (which decide whether a request is let in), and
``usage_days`` (which pages of usage read). ``python -m accounts.check`` adds everything up again.

What is written with every request has no row ids on SQLite (``sqlite_with_rowid``), so that a row is in the tree of its
key, and not in another one beside it.

Times are milliseconds since 1970, amounts nano-dollars; both are 64-bit integers.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

OPTIONAL_JSON = JSON(none_as_null=True)  # None is NULL, as in every other column
BIG_ID = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only what is called INTEGER

organisations = Table(
    "organisations",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger),
    UniqueConstraint("name"),
)

accounts = Table(
    "accounts",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("organisation_id", String(40), ForeignKey("organisations.id"), nullable=False),
    Column("name", String(200), nullable=False),
    Column("prepaid", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger),
    UniqueConstraint("organisation_id", "name"),
)

keys = Table(
    "keys",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("account_id", String(40), ForeignKey("accounts.id"), nullable=False),
    Column("name", String(200), nullable=False),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("hint", String(16), nullable=False),
    # The secret before it was replaced, which holds until retired_at.
    Column("retired_digest", LargeBinary(32), unique=True),
    Column("retired_at", BigInteger),
    Column("scopes", JSON, nullable=False),
    Column("models", OPTIONAL_JSON),
    Column("tasks", OPTIONAL_JSON),
    Column("origins", OPTIONAL_JSON),
    Column("limits", JSON, nullable=False),
    Column("budgets", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("last_used_at", BigInteger),
    Index(None, "account_id"),
)

# One row for each name: "keys_version" counts every change of a key or an account up, so that routers notice it by
# reading one number; "pepper" is the secret with which keys are hashed where the environment has none.
settings = Table(
    "settings",
    METADATA,
    Column("name", String(40), primary_key=True),
    Column("value", Text, nullable=False),
)

price_lists = Table(
    "price_lists",
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("content", JSON, nullable=False),
    Column("first_used_at", BigInteger, nullable=False),
)

# Never changed, never removed. Credits are positive, charges negative.
entries = Table(
    "entries",
    METADATA,
    Column("id", BIG_ID, primary_key=True, autoincrement=True),
    # Of a charge the id of its hold, of a credit a random one: what is written twice is counted once.
    Column("uid", String(40), nullable=False, unique=True),
    Column("account_id", String(40), ForeignKey("accounts.id"), nullable=False),
    Column("key_id", String(40), ForeignKey("keys.id")),
    Column("kind", String(16), nullable=False),  # charge, sign_up, grant, refund
    Column("amount", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("day", String(10)),  # of a charge: whose budgets it is paid from, so the day on which it was held
    Column("request_id", String(128)),
    Column("outcome", String(16)),
    Column("model", String(200)),
    Column("tasks", String(400)),
    Column("images", Integer),
    Column("cached_images", Integer),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("batch", Boolean),
    Column("price_list", String(64), ForeignKey("price_lists.digest")),
    Column("note", String(400)),
    Index(None, "account_id", "id"),
    Index(None, "request_id"),
)

balances = Table(
    "balances",
    METADATA,
    Column("account_id", String(40), ForeignKey("accounts.id"), primary_key=True),
    Column("settled", BigInteger, nullable=False),  # the sum of the account's entries
    Column("held", BigInteger, nullable=False),  # the sum of its holds
    sqlite_with_rowid=False,
)

# What a key has spent in a period: "total", a month as 2026-11, or a day as 2026-11-27.
spending = Table(
    "spending",
    METADATA,
    Column("key_id", String(40), ForeignKey("keys.id"), primary_key=True),
    Column("period", String(10), primary_key=True),
    Column("settled", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

holds = Table(
    "holds",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("account_id", String(40), ForeignKey("accounts.id"), nullable=False),
    Column("key_id", String(40), ForeignKey("keys.id"), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("day", String(10), nullable=False),  # on which it was taken: it is paid from the budgets of that day
    Column("expires_at", BigInteger, nullable=False),
    Index(None, "expires_at"),
    sqlite_with_rowid=False,
)

usage_days = Table(
    "usage_days",
    METADATA,
    Column("account_id", String(40), ForeignKey("accounts.id"), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("key_id", String(40), ForeignKey("keys.id"), primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("images", BigInteger, nullable=False),
    Column("cached_images", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),  # positive: what was spent
    Index(None, "day"),
    sqlite_with_rowid=False,
)

# Answers to requests with an Idempotency-Key.
answers = Table(
    "answers",
    METADATA,
    Column("key_id", String(40), ForeignKey("keys.id"), primary_key=True),
    Column("idempotency_key", String(255), primary_key=True),
    Column("request_digest", LargeBinary(32), nullable=False),
    Column("state", String(16), nullable=False),  # running, answered
    Column("owner", String(40), nullable=False),  # who is working on it
    Column("status", Integer),
    Column("headers", OPTIONAL_JSON),
    Column("body", LargeBinary),
    Column("settlements", OPTIONAL_JSON),  # written again when the answer is: it is paid once, and never not at all
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index(None, "expires_at"),
)

audit = Table(
    "audit",
    METADATA,
    Column("id", BIG_ID, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", String(80), nullable=False),  # a key's id, or "command:" and the name of who ran it
    Column("action", String(40), nullable=False),
    Column("subject", String(80), nullable=False),
    Column("details", JSON, nullable=False),
    Index(None, "subject"),
)
