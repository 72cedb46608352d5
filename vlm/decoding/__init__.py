"""Decodes images in processes that can be stopped, within a budget of memory."""
