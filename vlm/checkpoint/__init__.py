"""A checkpoint on disk or on the hub: its files, its JSON, its tensors, and how one is made up for tests."""
