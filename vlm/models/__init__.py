"""One folder a model family. Importing this package imports no torch; see ``base`` for the contract."""
