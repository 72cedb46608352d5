"""Requests outlive the replicas that work on them: they are tried again, and streams go on where they were cut."""
