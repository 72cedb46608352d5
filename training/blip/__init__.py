"""The miniature of BLIP: its files, training recipe and evaluation."""
