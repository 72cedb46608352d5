"""Building blocks of the models: attention, and one transformer that a spec configures."""
