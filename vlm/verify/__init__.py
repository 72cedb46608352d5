"""Whether a checkpoint is whole, is what it says it is, and runs: ``python -m vlm.verify``. Names no model."""
