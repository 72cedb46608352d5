"""The command ``gigarouter``: one name for what ``python -m`` also starts, and what asks a running system."""
