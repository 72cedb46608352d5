"""The versions of the tables, by Alembic. A new one is a file in ``versions``; none that was released is changed."""
