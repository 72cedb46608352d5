"""Counts and times for Prometheus: what is measured, and the two ways out of a process. Knows no HTTP and no engine."""
