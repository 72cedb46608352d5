"""A trained model to files: fp16 weights, configuration and generation settings in the layout of the hub."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

from transformers import GenerationConfig


def write_model(model: Any, generation: GenerationConfig, folder: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors; the model itself stays as it is."""
    published = copy.deepcopy(model).eval().half()
    published.generation_config = generation
    published.save_pretrained(folder)
    generation.save_pretrained(folder)


def fingerprint(tokenizer: Path) -> str:
    """Of a tokenizer.json."""
    return hashlib.sha256(tokenizer.read_bytes()).hexdigest()[:16]
