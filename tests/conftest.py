"""No deadlines for hypothesis: another process on the same cores would fail a test that is right."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
