"""Tiny checkpoints of the served architectures, and what makes them: a world of coloured shapes and words."""
