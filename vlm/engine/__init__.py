"""Continuous batching: at every step, sequences may start and finish. Imports no model family."""
