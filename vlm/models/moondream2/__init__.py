"""Moondream 2: captions, questions, reasoning and pointing (vikhyatk/moondream2)."""
