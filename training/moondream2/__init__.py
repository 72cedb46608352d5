"""The miniature of Moondream 2: its files, training tasks, recipe and evaluation."""
