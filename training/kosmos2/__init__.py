"""The miniature of Kosmos-2: its files, its tasks in the world of shapes, and its lesson."""
