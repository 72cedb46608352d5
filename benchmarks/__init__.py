"""The whole system, over HTTP, beside its peers in the same run."""
