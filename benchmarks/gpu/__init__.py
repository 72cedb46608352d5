"""What the engine does on a GPU, measured in minutes by one command: ``python -m benchmarks.gpu``."""
