"""How the replicas of a model follow a day's load, from zero and back to zero."""
