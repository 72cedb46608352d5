"""Features of crops, put together and batched."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from tests.vlm.models.moondream2.driver import DATA, golden
from vlm.models.moondream2 import vision
from vlm.models.moondream2.revisions import read_config
from vlm.models.moondream2.synthetic import SIZES
from vlm.models.moondream2.vision import Moondream2Vision

UNITS = load_file(DATA / "units.safetensors")


def tiny() -> Moondream2Vision:
    torch.manual_seed(1)
    model = Moondream2Vision(read_config(SIZES["tiny"]).section("vision"))
    with torch.no_grad():
        model.positions.normal_()
    return model.eval()


def canvas(rows: int, columns: int, seed: int) -> torch.Tensor:
    shape = (28, 28) if rows * columns == 1 else (rows * 14 + 14 + 28, columns * 14 + 14)
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed))


def test_tiles_are_stitched_and_pooled_as_by_the_original() -> None:
    model, tiles = golden()[0].vision, UNITS["recon.in_2x3"]
    assert torch.equal(model.stitched(tiles, 2, 3), UNITS["recon.out_2x3"])
    features = torch.cat([torch.zeros(1, 729, 2), tiles.flatten(1, 2)])
    torch.testing.assert_close(model.pooled(features, 2, 3), UNITS["recon.pooled_2x3"], atol=1e-6, rtol=0)


def test_a_single_tile_is_the_whole_image() -> None:
    features = torch.randn(1, 16, 24)
    model = tiny()
    assert torch.equal(model.pooled(features, 1, 1), features[0])
    crops, rows, columns = model.crops(canvas(1, 1, 0))
    assert (crops.shape, rows, columns) == ((1, 3, 28, 28), 1, 1)


def test_tiles_overlap_by_two_margins() -> None:
    crops, rows, columns = tiny().crops(canvas(2, 3, 0))
    assert (crops.shape, rows, columns) == ((7, 3, 28, 28), 2, 3)
    assert torch.equal(crops[1][:, :, 14:], crops[2][:, :, :14])
    assert torch.equal(crops[1][:, 14:], crops[4][:, :14])
    assert torch.equal(crops[0], canvas(2, 3, 0)[:, -28:, :28])


@pytest.mark.parametrize("most", [1, 5, 64])
@torch.inference_mode()
def test_images_are_encoded_as_if_alone(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision, "CROPS_AT_ONCE", most)
    model = tiny()
    images = [canvas(1, 1, 1), canvas(2, 5, 2), canvas(12, 1, 3), canvas(1, 1, 4)]
    for together, image in zip(model(images), images, strict=True):
        assert together.shape == (16, 32)
        torch.testing.assert_close(together, model([image])[0])
