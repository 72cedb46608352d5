"""A trained model to files: fp16 weights, configuration and generation settings in the layout of the hub."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

from transformers import GenerationConfig


def write_model(model: Any, generation: GenerationConfig, folder: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors; the model itself stays as it is."""
    published = copy.deepcopy(model).eval().half()
    published.generation_config = generation
    published.save_pretrained(folder)
    generation.save_pretrained(folder)


def pack(folder: Path) -> None:
    """Write tokenizer.json without the spaces that people read it by: a third of it; and let everybody read all."""
    tokenizer = folder / "tokenizer.json"
    content = json.loads(tokenizer.read_text("utf-8"))
    tokenizer.write_text(json.dumps(content, separators=(",", ":"), ensure_ascii=False), encoding="utf-8")
    for file in folder.iterdir():
        file.chmod(0o644)


def fingerprint(tokenizer: Path) -> str:
    """Of a tokenizer.json."""
    return hashlib.sha256(tokenizer.read_bytes()).hexdigest()[:16]
