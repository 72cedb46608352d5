"""The whole system as events in simulated time, with service times that were measured. Standard library only."""
