"""Continuous batching: requests join and leave at every step. Knows ``models.base`` and no concrete model."""
