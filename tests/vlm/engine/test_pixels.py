"""The engine hands a model normalised pixels in its dtype, from a table that it reads once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.images import scene
from tests.oracle import MINIATURES
from tests.vlm.engine.world import Faulty
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.loading import load
from vlm.models.base import normalised, pixel_table
from vlm.types import Request, Sampling


class CountsTables:
    """Stands before a processor, and counts how often its table is read."""

    def __init__(self, behind: object) -> None:
        self._behind, self.tables = behind, 0

    def __getattr__(self, name: str) -> Any:
        self.tables += name == "pixel_table"
        return getattr(self._behind, name)


@pytest.mark.parametrize("name", ["blip-large", "florence-2-base", "kosmos-2", "moondream-2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_reads_what_the_table_says(name: str, dtype: str) -> None:
    loaded = load(MINIATURES / name, dtype=dtype, device="cpu")
    seen: list[Tensor] = []

    def note(pixels: Sequence[Tensor]) -> None:
        seen.extend(pixels)

    model: Any = Faulty(loaded.model, "encode_images", note)
    processor: Any = CountsTables(loaded.processor)
    images = [scene(number) for number in range(3)]
    with Engine(replace(loaded, model=model, processor=processor), EngineConfig(cache_bytes=64 * 1024**2)) as engine:
        for image in images:
            engine.answer(Request(image, sampling=Sampling(max_tokens=1)))
    assert processor.tables == 1
    table = pixel_table(loaded.model, loaded.processor)
    for image, found in zip(images, seen, strict=True):
        assert torch.equal(found, normalised(loaded.processor.preprocess(image).pixels, table))
