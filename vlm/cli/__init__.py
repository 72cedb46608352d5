"""The parts of ``python -m vlm``: reading the command line, its files, checks before loading, and what is printed."""
