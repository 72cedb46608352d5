"""Encoded images to pixels and back, within limits."""
