"""How many answers of a miniature are the same on the device and in narrower dtypes as in float32 on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.gpu.models import FOLDERS, MINIATURES
from benchmarks.gpu.records import Scale, write
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.loading import load
from vlm.types import Completion, Request, Sampling, Task

IMAGES = Path(__file__).resolve().parents[2] / "docs/images"
DTYPES = ("float32", "bfloat16", "float16")
LABEL = "circle"


def measure(family: str, device: torch.device, scale: Scale) -> None:
    """Write, for each task and dtype, the number of answers with the reference's token ids."""
    images = [path.read_bytes() for path in sorted(IMAGES.glob("*.png"))[: scale.images]]
    expected = _answers(family, "float32", "cpu", images)
    for dtype in DTYPES if device.type == "cuda" else DTYPES[1:]:
        for name, answers in _answers(family, dtype, str(device), images).items():
            pairs = list(zip(expected[name], answers, strict=True))
            equal = sum(one.token_ids == other.token_ids for one, other in pairs)
            write(
                "agreement", family=family, task=name, dtype=dtype, device=device.type, equal=equal, of=len(pairs),
                first_difference=_first_differences(pairs),
            )  # fmt: skip


def _answers(family: str, dtype: str, device: str, images: list[bytes]) -> dict[str, list[Completion]]:
    loaded = load(MINIATURES / FOLDERS[family], dtype=dtype, device=device)
    greedy = Sampling(max_tokens=40, num_beams=1)
    asked: dict[str, tuple[Task | None, Sampling]] = {"default": (None, greedy)}
    if "detect" in loaded.processor.tasks:
        asked["detect"] = Task("detect", labels=(LABEL,)), greedy
    if loaded.model.beam_search:
        asked["default, 3 beams"] = None, replace(greedy, num_beams=3)
    with Engine(loaded, EngineConfig(cache_bytes=256 * 2**20)) as engine:
        return {
            name: engine.answer_all(Request(image, task=task, sampling=sampling) for image in images)
            for name, (task, sampling) in asked.items()
        }


def _first_differences(pairs: list[tuple[Completion, Completion]]) -> list[int]:
    """Of each answer that differs, the index of the first token that does."""
    different = [(a.token_ids, b.token_ids) for a, b in pairs if a.token_ids != b.token_ids]
    return [
        next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        for a, b in different
    ]
