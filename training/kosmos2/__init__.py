"""The miniature of Kosmos-2: its files, training tasks, recipe and evaluation."""
