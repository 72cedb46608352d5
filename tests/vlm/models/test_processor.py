"""The helpers of the contract's torch-free half."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from vlm.models.processor import Bytes, Inputs, replace_surrogates


def test_lone_surrogates_become_question_marks_and_all_else_stays() -> None:
    assert replace_surrogates("a\ud83d b\udc00") == "a? b?"
    assert replace_surrogates("für 😀") == "für 😀"


@pytest.mark.parametrize(("shape", "crops"), [(None, 0), ((3, 8, 8), 1), ((13, 3, 8, 8), 13), ((1, 3, 8, 8), 1)])
def test_an_image_has_as_many_crops_as_the_encoder_sees(shape: tuple[int, ...] | None, crops: int) -> None:
    pixels = None if shape is None else cast(Bytes, np.zeros(shape, np.uint8))
    assert Inputs(pixels, (1,), (), "caption", "", "default", None, 0, 1).crops == crops
