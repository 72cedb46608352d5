"""Numbers keep their values, shapes and dtypes on their way to the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlm.layers.upload import upload

CPU = torch.device("cpu")


@pytest.mark.parametrize("numbers", [[1, 2, 3], [[0.5, 1.0], [2.0, 4.0]], [True, False], []])
def test_lists_become_what_torch_makes_of_them(numbers: list[object]) -> None:
    found, expected = upload(numbers, CPU), torch.tensor(numbers)
    assert torch.equal(found, expected)
    assert found.dtype == expected.dtype


def test_arrays_keep_their_dtype() -> None:
    assert upload(np.arange(6, dtype=np.int64).reshape(2, 3), CPU).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert upload(np.zeros(2, np.uint8), CPU).dtype == torch.uint8


def test_a_dtype_may_be_asked_for() -> None:
    assert upload([], CPU, torch.long).dtype == torch.long
