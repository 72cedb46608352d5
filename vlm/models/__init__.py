"""Model families, a folder each; ``base`` and ``processor`` are the contract. Importing it needs no torch."""
