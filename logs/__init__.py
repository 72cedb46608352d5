"""The lines that our processes log: which request each belongs to, and how it is written. Knows no HTTP and no Ray."""
