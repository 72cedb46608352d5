"""A vision encoder handed on sees in its new place what it saw before."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from tests.training.recipes import batches, untrained
from training.blip.recipe import TrainableBlip
from training.data.normalisation import CLIP_MEAN, CLIP_STD
from training.kosmos2.recipe import TrainableKosmos2
from training.moondream2.recipe import TrainableMoondream2


def alike(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(F.cosine_similarity(one, other, dim=-1).mean())


def test_the_encoders_of_three_models_see_alike() -> None:
    blip, kosmos, moondream = (untrained(name) for name in ("blip-large", "kosmos-2", "moondream-2"))
    assert isinstance(blip, TrainableBlip)
    assert isinstance(kosmos, TrainableKosmos2)
    assert isinstance(moondream, TrainableMoondream2)
    pixels = batches("blip-large").sample(4)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    clip: Any = kosmos.model.vision_model.model
    with torch.no_grad():
        seen = blip.model.vision_model(pixel_values=pixels).last_hidden_state[:, 1:]
        by_moondream = moondream.model.vision.encode((pixels * std + mean) * 2 - 1)
        by_kosmos = clip.post_layernorm(kosmos.model.vision_model(pixel_values=pixels)[0])[:, 1:]
    assert alike(seen, by_moondream) > 0.98  # without a class position, and with GELU's approximation
    assert alike(seen, by_kosmos) > 0.6  # with a norm more, which trained weights feel less (0.97)
