"""Uploaded files: an image that is sent once, and asked about by its id."""
