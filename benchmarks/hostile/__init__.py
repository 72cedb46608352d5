"""What hostile clients cost everybody else on a running system: ``python -m benchmarks.hostile``."""
