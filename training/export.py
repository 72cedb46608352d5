"""Write a trained model as files in the layout of the Hugging Face hub: fp16 weights, configuration, tokenizer."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

from transformers import GenerationConfig


def write_model(model: Any, generation: GenerationConfig, folder: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors; ``model`` itself is not changed."""
    published = copy.deepcopy(model).eval().half()
    published.generation_config = generation
    published.save_pretrained(folder)
    generation.save_pretrained(folder)


def compact(folder: Path) -> None:
    """Rewrite tokenizer.json without indentation, which is two thirds of its size, and make all files readable."""
    tokenizer = folder / "tokenizer.json"
    content = json.loads(tokenizer.read_text("utf-8"))
    tokenizer.write_text(json.dumps(content, separators=(",", ":"), ensure_ascii=False), encoding="utf-8")
    for file in folder.iterdir():
        file.chmod(0o644)


def fingerprint(tokenizer: Path) -> str:
    """A short hash of a tokenizer.json, which identifies the vocabulary."""
    return hashlib.sha256(tokenizer.read_bytes()).hexdigest()[:16]
