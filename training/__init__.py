"""Trains and evaluates the tiny checkpoints in ``miniatures/``; their data is a synthetic world of shapes and words."""
