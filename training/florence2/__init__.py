"""The miniature of Florence-2: its files, its tasks in the world of shapes, and its lesson."""
