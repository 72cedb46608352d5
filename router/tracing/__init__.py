"""Traces of requests in the router: which are recorded, and their spans. Nothing of it runs where they are off."""
