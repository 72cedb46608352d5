"""What Alembic runs: the steps on the connection that :mod:`accounts.migrate` has opened, within its transaction."""

from __future__ import annotations

from alembic import context

from accounts.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,  # SQLite changes columns by copying the table
)
with context.begin_transaction():
    context.run_migrations()
