"""How images are cut, against the original's own numbers."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from tests.vlm.models.moondream2.driver import DATA, golden, golden_image
from vlm.errors import CheckpointError
from vlm.models.moondream2.revisions import read_config
from vlm.models.moondream2.tiling import Tiling, pixel_table

TILING = Tiling.of(read_config({}).section("vision"))
EXPECTED: dict[str, Any] = json.loads((DATA / "preprocess.json").read_text("utf-8"))
SMALL = Tiling(crop=28, margin=7, max_tiles=12)
LONGEST = 11.7


def image(name: str) -> Image.Image:
    return Image.open(io.BytesIO(golden_image(name))).convert("RGB")


def test_the_published_sizes() -> None:
    assert Tiling(crop=378, margin=56, max_tiles=12) == TILING
    assert TILING.stride == 266


def test_tiles_are_the_originals_up_to_their_bound() -> None:
    over = [one for one in EXPECTED["tiles_by_size"] if one[2] * one[3] > TILING.max_tiles]
    assert over == [[8000, 379, 1, 13], [8000, 480, 1, 13], [8000, 644, 1, 13]]
    for width, height, rows, columns in EXPECTED["tiles_by_size"]:
        expected = (1, 12) if [width, height, rows, columns] in over else (rows, columns)
        assert TILING.tiles(width, height) == expected, (width, height)


@pytest.mark.parametrize(("size", "tiles"), [((100_000, 600), (1, 12)), ((600, 100_000), (12, 1))])
def test_no_image_has_more_tiles_than_the_bound(size: tuple[int, int], tiles: tuple[int, int]) -> None:
    """The original gives the first one 47."""
    assert TILING.tiles(*size) == tiles


@given(width=st.integers(1, 40_000), height=st.integers(1, 40_000))
def test_every_image_has_a_tile_and_not_too_many(width: int, height: int) -> None:
    rows, columns = TILING.tiles(width, height)
    assert rows >= 1 <= columns
    assert rows * columns <= TILING.max_tiles
    assert TILING.tiles(height, width) == (columns, rows)


@given(width=st.integers(1, 8000), ratio=st.floats(1, LONGEST))
def test_the_bound_changes_nothing_up_to_a_ratio(width: int, ratio: float) -> None:
    assert Tiling(378, 56, 12).tiles(width, max(1, int(width / ratio))) == original_tiles(
        width, max(1, int(width / ratio))
    )


def original_tiles(width: int, height: int) -> tuple[int, int]:
    """What the original does, without the bound: from the specification of its tiling, independently of ours."""
    import math

    wide, high, side, most = width - 112, height - 112, 266, 12
    if min(wide, high) <= side:
        return 1, 1
    down, across = math.ceil(high / side), math.ceil(wide / side)
    if down * across > most:
        ratio = math.sqrt(most / (down * across))
        return max(1, math.floor(down * ratio)), max(1, math.floor(across * ratio))
    down = max(math.floor(math.sqrt(most * high / wide)), down)
    across = max(math.floor(math.sqrt(most * wide / high)), across)
    if down * across > most:
        down, across = (down, most // down) if across > down else (most // across, across)
    return max(1, down), max(1, across)


@pytest.mark.parametrize("name", EXPECTED["images"])
def test_crops_are_the_originals_bit_for_bit(name: str) -> None:
    expected = EXPECTED["images"][name]
    canvas = torch.from_numpy(TILING.canvas(image(name)))
    crops, rows, columns = golden()[0].vision.crops(canvas)
    assert [rows, columns] == expected["tiles"]
    found = [hashlib.sha256(one.permute(1, 2, 0).contiguous().numpy().tobytes()).hexdigest() for one in crops]
    # Of a single tile, the original has the same crop twice.
    assert found == (expected["crop_sha256"][:1] if rows * columns == 1 else expected["crop_sha256"])
    assert rows * columns > 1 or len(set(expected["crop_sha256"])) == 1


def test_bytes_become_the_originals_numbers() -> None:
    table = load_file(DATA / "units.safetensors")["pixel_lut"]
    found = pixel_table()
    assert found.dtype == np.float32
    assert np.array_equal(found, np.stack([table.numpy()] * 3))


@given(width=st.integers(1, 300), height=st.integers(1, 300))
def test_the_size_of_a_canvas_tells_its_tiles(width: int, height: int) -> None:
    rows, columns = SMALL.tiles(width, height)
    canvas = SMALL.canvas(Image.new("RGB", (width, height), (9, 9, 9)))
    if rows * columns == 1:
        assert canvas.shape == (3, 28, 28)
    else:
        assert canvas.shape == (3, rows * 14 + 14 + 28, columns * 14 + 14)


@pytest.mark.parametrize("changes", [{"crop_size": 380}, {"overlap_margin": 14}, {"crop_size": 112}])
def test_sizes_that_do_not_fit_together_are_found_at_load(changes: dict[str, int]) -> None:
    with pytest.raises(CheckpointError, match="must be a whole number of patches"):
        Tiling.of(read_config({"config": {"vision": changes}}).section("vision"))
