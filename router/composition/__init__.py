"""Answers that several models give together, or the one among them that suits: see docs/composition.md."""
