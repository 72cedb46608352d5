"""Breaks and changes a cluster of several nodes under load, and counts what its clients notice."""
