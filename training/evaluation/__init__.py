"""Clients that answer the questions of an evaluation, and the metrics that their answers are scored by."""
