"""The miniature of Florence-2: its files, training tasks, recipe and evaluation."""
