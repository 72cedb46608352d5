"""What an engine needs of a GPU is counted before it takes anything, and refused in words that say what to do."""

from __future__ import annotations

import pytest

from vlm.engine.config import EngineConfig
from vlm.engine.gpu_share import CONTEXT_BYTES, GIB, Needs, Share, Taken
from vlm.errors import ConfigError
from vlm.models.processor import CacheSpec

CARD = 80 * GIB
NEEDS = Needs(weights=GIB, cache=2 * GIB, encoder_cache=GIB // 4, workspace=GIB)
BLIP = CacheSpec(layers=12, kv_heads=12, head_dim=64, max_positions=512, cross_positions=577)


def test_what_fits_is_let_in_to_the_last_byte() -> None:
    card = NEEDS.total + CONTEXT_BYTES
    Share(card, 1.0).require(NEEDS)
    with pytest.raises(ConfigError):
        Share(card - 1, 1.0).require(NEEDS)


def test_the_refusal_has_all_sizes_and_the_fraction_that_would_do() -> None:
    with pytest.raises(ConfigError) as refused:
        Share(CARD, 0.05).require(NEEDS)
    words = str(refused.value)
    sizes = (
        "0.05 of 80.00 GiB is 4.00 GiB", "needs 5.03 GiB", "weights 1.00 GiB", "KV cache 2.00 GiB",
        "encoded images 0.25 GiB", "workspace 1.00 GiB", "CUDA's own 0.78 GiB", "num_gpus of 0.063",
    )  # fmt: skip
    for size in sizes:
        assert size in words
    Share(CARD, 0.063).require(NEEDS)


def test_a_card_that_is_too_small_as_a_whole_is_not_answered_with_a_fraction() -> None:
    with pytest.raises(ConfigError, match="whole card is too small") as refused:
        Share(4 * GIB, 0.5).require(NEEDS)
    assert "num_gpus" not in str(refused.value)


def test_a_share_below_the_context_leaves_nothing_to_torch() -> None:
    assert Share(CARD, 0.001).allocator_bytes == 0
    assert Share(CARD, 0.25).allocator_fraction == pytest.approx((20 * GIB - CONTEXT_BYTES) / CARD)


def test_the_kv_cache_counts_with_what_the_plan_takes_of_its_budget() -> None:
    config = EngineConfig(max_batch=1, cache_bytes=64 * GIB, encoder_cache_bytes=5, workspace_bytes=7)
    needs = Needs.of(GIB, BLIP, 2, config)
    assert GIB > needs.cache > BLIP.bytes_per_position(2) * (BLIP.cross_positions + BLIP.max_positions)
    assert (needs.weights, needs.encoder_cache, needs.workspace) == (GIB, 5, 7)
    assert Needs.of(GIB, BLIP, 2, EngineConfig()).cache <= EngineConfig().cache_bytes


def test_what_was_taken_is_one_line() -> None:
    line = str(Taken(GIB, 2 * GIB, GIB, 3 * GIB, 4 * GIB))
    assert line == "1.00 GiB in use, 2.00 GiB held (at most 3.00 GiB since the start), of 4.00 GiB"
