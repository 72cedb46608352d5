"""The whole system over HTTP, beside what else one could serve the same models with."""
