"""Coordinates and sizes, in and out, against the original's numbers."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests.vlm.models.moondream2.driver import DATA, golden
from vlm.models.moondream2.locations import LocationIds
from vlm.models.moondream2.revisions import read_config

UNITS = load_file(DATA / "units.safetensors")
LOCATIONS = LocationIds.of(read_config({}))


@torch.inference_mode()
def test_vectors_and_logits_are_the_originals() -> None:
    region, hidden = golden()[0].region, UNITS["region.hidden_in"][0]
    for found, expected in (
        (region.embed(UNITS["region.coords_in"]), UNITS["region.coords_emb"]),
        (region.embed(UNITS["region.sizes_in"]), UNITS["region.sizes_emb"]),
        (region.coordinate_logits(hidden), UNITS["region.coord_logits"][0]),
        (region.size_logits(hidden)[0], UNITS["region.size_logits"]),
    ):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@torch.inference_mode()
def test_bins_stand_for_what_ids_say() -> None:
    region = golden()[0].region
    bins = torch.tensor([0, 1, 500, 1023])
    values = torch.tensor([[LOCATIONS.coordinate(LOCATIONS.vocabulary + int(one))] for one in bins])
    torch.testing.assert_close(region.embed_bins(bins), region.embed(values))
    pairs = torch.tensor([0, 1023, 1024, 1024**2 - 1, 500 * 1024 + 3])
    sizes = torch.tensor([LOCATIONS.size(LOCATIONS.sizes + int(one)) for one in pairs])
    torch.testing.assert_close(region.embed_size_bins(pairs), region.embed(sizes), atol=1e-4, rtol=0)


def test_locations_are_the_originals() -> None:
    found = [LOCATIONS.coordinate(51200 + one) for one in range(1024)]
    assert found == UNITS["region.coord_values_f32"].tolist()
    widths = [LOCATIONS.size(51200 + 1024 + 1024 * one) for one in range(1024)]
    expected = UNITS["region.size_values_f32"].double()
    assert (torch.tensor([one[0] for one in widths if one], dtype=torch.double) - expected).abs().max() < 4e-7
    assert {one[1] for one in widths if one} == {2.0**-10}


@given(token=st.integers(0, 51200 + 1024 + 1024**2 + 5000))
def test_an_id_is_a_word_or_a_coordinate_or_a_size(token: int) -> None:
    is_place = 51200 <= token < 51200 + 1024 + 1024**2
    assert (LOCATIONS.coordinate(token) is not None) + (LOCATIONS.size(token) is not None) == is_place


def test_even_sizes_of_the_first_revision() -> None:
    locations = LocationIds(10, 4, 4, even_sizes=True)
    assert [locations.size(14 + one) for one in (0, 5, 15)] == [(0.0, 0.0), (0.25, 0.25), (0.75, 0.75)]
