"""What Florence-2's vision tower does otherwise on a GPU is the same, computed in another order."""

from __future__ import annotations

import pytest
import torch

from vlm.models.florence2.model import batches_of_few_sizes
from vlm.models.florence2.vision import _attend, _attend_in_parts


@pytest.mark.parametrize("positions", [1, 49, 64, 144])
def test_channels_attend_to_the_same_in_parts_of_the_positions(positions: int) -> None:
    generator = torch.Generator().manual_seed(positions)
    grid = torch.randn(2, positions, 3, 4, 8, generator=generator)  # as the fused matrix gives them
    queries, keys, values = grid.permute(2, 0, 3, 4, 1).unbind(0)
    expected = _attend(queries, keys, values)
    torch.testing.assert_close(_attend_in_parts(queries, keys, values), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (2, [2]), (3, [4]), (8, [8]), (9, [8, 1]), (21, [8, 8, 8])])
def test_batches_have_few_sizes_and_hold_all_images_in_order(count: int, sizes: list[int]) -> None:
    images = [torch.tensor(number) for number in range(count)]
    batches = list(batches_of_few_sizes(images))
    assert [len(batch) for batch in batches] == sizes
    assert [int(one) for batch in batches for one in batch][:count] == list(range(count))
