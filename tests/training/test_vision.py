"""The transferred vision encoder computes similar features in all three models."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from tests.training.recipes import batches, untrained
from training.blip.recipe import TrainableBlip
from training.data.normalisation import CLIP_MEAN, CLIP_STD
from training.kosmos2.recipe import TrainableKosmos2
from training.moondream2.recipe import TrainableMoondream2


def similarity(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(F.cosine_similarity(one, other, dim=-1).mean())


def test_the_encoders_of_three_models_compute_similar_features() -> None:
    blip, kosmos, moondream = (untrained(name) for name in ("blip-large", "kosmos-2", "moondream-2"))
    assert isinstance(blip, TrainableBlip)
    assert isinstance(kosmos, TrainableKosmos2)
    assert isinstance(moondream, TrainableMoondream2)
    pixels = batches("blip-large").first_images(4)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    clip: Any = kosmos.model.vision_model.model
    with torch.no_grad():
        by_blip = blip.model.vision_model(pixel_values=pixels).last_hidden_state[:, 1:]
        by_moondream = moondream.model.vision.encode((pixels * std + mean) * 2 - 1)
        by_kosmos = clip.post_layernorm(kosmos.model.vision_model(pixel_values=pixels)[0])[:, 1:]
    assert similarity(by_blip, by_moondream) > 0.98  # without a class token, and with the approximate GELU
    assert similarity(by_blip, by_kosmos) > 0.6  # one more norm, which changes trained weights less (0.97)
