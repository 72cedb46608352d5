"""The whole system on one machine: ``python -m deployments.local``."""
