"""Recognises folders that cannot be loaded, and says what to do: adapters, quantised weights, Git LFS pointers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm.errors import CheckpointError

MISSING_FILE = "missing_file"
"""The code of the error for a missing small file; its ``param`` is the file's name."""

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_LFS = b"version https://git-lfs.github.com/spec/"
_QUANTISED = re.compile(
    r".*\.(qweight|qzeros|g_idx|absmax|quant_map|nested_absmax|nested_quant_map|SCB|quant_state\..+)"
)
_ADAPTED = re.compile(r".*\.lora_[AB]\..*|.*\.base_layer\..*|base_model\.model\..*")
_UNQUANTISED = (
    "Quantised weights cannot be loaded. Use the checkpoint that it was quantised from, in float32, float16 or bfloat16"
)


def unusable(folder: Path, name: str, fault: str) -> CheckpointError:
    """The error for a file that is damaged or is not what its name says."""
    return CheckpointError(f"{name} in {folder} {fault}. Fetch the checkpoint again, or use another folder.")


def missing(folder: Path, name: str) -> CheckpointError:
    """The error for a small file that is not there."""
    return CheckpointError(
        f"{name} in {folder} is missing. Fetch the checkpoint again, or use another folder.", name, MISSING_FILE
    )


def unreadable(path: Path, fault: str) -> CheckpointError:
    """The error for a file whose content cannot be read. For a Git LFS pointer it says how to get the file itself."""
    if is_lfs_pointer(path):
        return CheckpointError(
            f"{path.name} in {path.parent} is a Git LFS pointer, not the file itself. Run `git lfs pull` in the "
            "repository, or fetch the checkpoint with `hf download`."
        )
    return unusable(path.parent, path.name, fault)


def is_lfs_pointer(path: Path) -> bool:
    """Whether the file is what Git leaves in place of a large file that was not fetched."""
    try:
        with path.open("rb") as file:
            return file.read(len(_LFS)) == _LFS
    except OSError:
        return False


def refuse_adapter(folder: Path) -> None:
    """Raise CheckpointError for a folder that has a LoRA adapter but no model."""
    adapter = (folder / ADAPTER_CONFIG).is_file() or (folder / ADAPTER_WEIGHTS).is_file()
    if not adapter or any(folder.glob("model*.safetensors")):
        return
    base = _base_model(folder / ADAPTER_CONFIG)
    raise CheckpointError(
        f"{folder} holds an adapter only (LoRA), not a whole model. Merge it into its base model first: python -c "
        '"from peft import PeftModel; from transformers import AutoModelForImageTextToText, AutoProcessor; '
        f"base = AutoModelForImageTextToText.from_pretrained('{base}'); "
        f"PeftModel.from_pretrained(base, '{folder}').merge_and_unload().save_pretrained('merged'); "
        f"AutoProcessor.from_pretrained('{base}').save_pretrained('merged')\", then load the folder merged."
    )


def _base_model(path: Path) -> str:
    try:
        base = json.loads(path.read_text("utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        base = None
    return base if isinstance(base, str) and base else "BASE_MODEL"


def refuse_quantised(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise CheckpointError where config.json says that the weights are quantised."""
    settings = config.get("quantization_config")
    if settings is None:
        return
    method = settings.get("quant_method") if isinstance(settings, Mapping) else None
    how = f" ({method})" if isinstance(method, str) else ""
    raise CheckpointError(f"config.json in {folder} has a quantization_config{how}. {_UNQUANTISED}.")


def advice_on(unexpected: Sequence[str]) -> str:
    """Advice, as a sentence, that the names of unexpected tensors suggest; "" if they suggest none."""
    for name in unexpected:
        if _QUANTISED.fullmatch(name):
            return f" {name} is part of a quantised matrix (GPTQ, AWQ or bitsandbytes). {_UNQUANTISED}."
        if _ADAPTED.fullmatch(name):
            return (
                f" {name} belongs to an adapter that was not merged: call merge_and_unload() of peft on the model, "
                "and save it again."
            )
    return ""
