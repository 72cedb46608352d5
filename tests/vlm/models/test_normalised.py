"""Images are bytes that the device looks up in a table: bit for bit what arithmetic on each byte makes of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.images import png
from tests.oracle import MINIATURES
from vlm.image.decode import decode
from vlm.image.preprocess import Array, Bytes, ImagePreprocessor
from vlm.loading import build_processor, find_family, open_checkpoint
from vlm.models.base import _looked_up_at_once, normalised
from vlm.models.moondream2.processor import Moondream2Processor

NAMES = ("blip-large", "florence-2-base", "kosmos-2", "moondream-2")


@cache
def processor_of(name: str) -> Any:  # of any family
    checkpoint = open_checkpoint(MINIATURES / name)
    return build_processor(*find_family(checkpoint), checkpoint)


def noise(width: int, height: int) -> bytes:
    """An image with every byte in every channel, as a file."""
    return png(Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)))


def computed(processor: Any, image: bytes) -> Tensor:
    """What the vision encoder reads, pixel by pixel and without a table: float32 ``[3, height, width]``."""
    if isinstance(processor, Moondream2Processor):
        return in_bfloat16(processor.tiling.canvas(decode(image)))
    return torch.from_numpy(in_float32(processor.images, decode(image)).transpose(2, 0, 1))


def in_float32(images: ImagePreprocessor, image: Image.Image) -> Array:
    """As transformers computes it, ``[height, width, 3]``."""
    resized = np.asarray(image.resize((images.width, images.height), images.resample)).astype(np.float64)
    rescaled = (resized * (1 if images.rescale is None else images.rescale)).astype(np.float32)
    mean, std = (np.array(channels, dtype=np.float32) for channels in (images.mean, images.std))
    result: Array = (rescaled - mean) / std
    return result


def in_bfloat16(canvas: Bytes) -> Tensor:
    """As Moondream 2's own code computes it."""
    scaled = (torch.from_numpy(canvas).float() / 255).bfloat16()
    return ((scaled - 0.5) / 0.5).float()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(640, 480), (31, 97), (900, 350)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_table_gives_what_arithmetic_gives(name: str, size: tuple[int, int], dtype: torch.dtype) -> None:
    processor, image = processor_of(name), noise(*size)
    pixels = processor.preprocess(image).pixels
    assert pixels.dtype == np.uint8
    found = normalised(pixels, torch.from_numpy(processor.pixel_table).to(dtype))
    assert found.dtype == dtype
    assert found.is_contiguous()
    assert torch.equal(found, computed(processor, image).to(dtype))


def test_crops_are_looked_up_as_if_alone() -> None:
    crops = np.random.default_rng(2).integers(0, 256, (4, 3, 5, 7), dtype=np.uint8)
    table = torch.randn(3, 256)
    assert torch.equal(normalised(crops, table), torch.stack([normalised(one, table) for one in crops]))


def test_every_channel_has_numbers_of_its_own() -> None:
    table = torch.arange(3 * 256).view(3, 256).float()
    found = normalised(np.full((3, 1, 2), 7, np.uint8), table)
    assert found.tolist() == [[[7, 7]], [[263, 263]], [[519, 519]]]


def test_a_gpu_looks_up_all_planes_at_once_with_the_same_result() -> None:
    table = torch.randn(3, 256)
    for shape in ((3, 5, 7), (4, 3, 5, 7)):
        pixels = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
        assert torch.equal(_looked_up_at_once(torch.from_numpy(pixels), table), normalised(pixels, table))
