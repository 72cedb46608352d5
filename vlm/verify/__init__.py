"""Checks that a checkpoint is complete, is what it claims to be, and runs: ``python -m vlm.verify``. Names no model."""
