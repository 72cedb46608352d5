"""The miniature of BLIP: its files and its lesson."""
