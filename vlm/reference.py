"""Answers of transformers' own classes, to compare ours with: one image at a time, greedy or with beams.

Calls ``generate`` with the settings that our engine uses. Knows no model: it serves those that transformers has.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.metadata import version

import torch
from PIL import Image

from vlm.checkpoint.files import Checkpoint
from vlm.models.processor import Processor
from vlm.types import Request

SINCE = "5.23"
"""The first version of transformers whose answers were compared with ours: in 5.17 and 5.20, ``generate`` of some
models gives other ones. The engine itself does not need transformers' models, and runs with these versions."""


def outdated() -> str | None:
    """The version of transformers that is installed, if it is older than :data:`SINCE`."""
    found = version("transformers")
    return found if _numbers(found) < _numbers(SINCE) else None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")[:2]))


def reference(
    checkpoint: Checkpoint,
    *,
    prompt: str = "",
    tokens: int,
    beams: int = 1,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Callable[[bytes], tuple[int, ...]]:
    """Load transformers' model; returns a function from an encoded image to the generated token ids.

    Args:
        prompt: The model's native prompt, or "" for none.
        tokens: Maximum number of tokens of an answer.
        beams: Number of beams of a search with early stopping; 1 is greedy.

    Raises:
        ImportError, OSError, ValueError: transformers is not installed, or does not have this model or its layout.
    """
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, AutoProcessor, logging

    if checkpoint.model_type not in CONFIG_MAPPING:  # otherwise it would offer to run code from the folder
        raise ValueError(f"transformers has no class for {checkpoint.model_type!r}")
    logging.set_verbosity_error()
    processor = AutoProcessor.from_pretrained(checkpoint.folder)
    model, info = AutoModelForImageTextToText.from_pretrained(checkpoint.folder, dtype=dtype, output_loading_info=True)
    if info["missing_keys"]:
        raise ValueError(f"transformers finds no values for {len(info['missing_keys'])} of its tensors in the folder")
    model = model.to(device).eval()
    # Some classes of transformers drop this setting when they read the checkpoint.
    ban = checkpoint.generation.get("no_repeat_ngram_size") or 0

    @torch.inference_mode()
    def answer(image: bytes) -> tuple[int, ...]:
        opened = Image.open(io.BytesIO(image)).convert("RGB")
        inputs = processor(images=opened, text=prompt or None, return_tensors="pt").to(device, dtype)
        out = model.generate(
            **inputs, max_new_tokens=tokens, num_beams=beams, do_sample=False, early_stopping=beams > 1,
            return_dict_in_generate=True, output_logits=True, no_repeat_ngram_size=ban,
        )  # fmt: skip
        written = out.beam_indices.shape[1] if beams > 1 else len(out.logits)
        return tuple(out.sequences[0, -written:].tolist())

    return answer


def native_prompt(processor: Processor, image: bytes, prompt: str = "") -> str:
    """The prompt in the form that transformers expects: the given one, or that of the model's default task."""
    return prompt or processor.prepare(Request(image, prompt)).native_task
