"""Hypothesis: no deadlines, since another process on the same cores would fail a test that is right; few examples by
default, and many with ``--hypothesis-profile=thorough``."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("quick", deadline=None, max_examples=40)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile("quick")
