"""What a memory budget buys, and that a block has one owner."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm.engine.blocks import BLOCK_SIZE, BlockPool, CachePlan, blocks_for
from vlm.errors import ConfigError
from vlm.models.processor import CacheSpec

specs = st.builds(CacheSpec, st.just(1), st.just(1), st.integers(1, 2048), st.integers(1, 2000), st.integers(0, 1000))


def least_bytes(spec: CacheSpec, element_size: int) -> int:
    """Cross attention of one row, one sequence of full length, and the block for padding."""
    block = BLOCK_SIZE * spec.bytes_per_position(element_size)
    return spec.cross_positions * spec.bytes_per_position(element_size) + (blocks_for(spec.max_positions) + 1) * block


@given(specs, st.sampled_from([2, 4]), st.integers(1, 300), st.floats(1, 8) | st.floats(1, 500))
def test_a_plan_keeps_its_budget_and_always_holds_one_full_sequence(
    spec: CacheSpec, element_size: int, max_rows: int, share: float
) -> None:
    budget = int(least_bytes(spec, element_size) * share)
    plan = CachePlan.fit(spec, element_size, budget, max_rows)
    per_position = spec.bytes_per_position(element_size)
    assert plan.bytes == per_position * (plan.slots * spec.cross_positions + plan.blocks * BLOCK_SIZE) <= budget
    assert 1 <= plan.slots <= max_rows
    assert BlockPool(plan.blocks).free >= blocks_for(spec.max_positions)


@given(specs, st.sampled_from([2, 4]), st.integers(1, 300))
def test_the_least_budget_buys_one_row_and_a_byte_less_is_an_error_that_names_it(
    spec: CacheSpec, element_size: int, max_rows: int
) -> None:
    least = least_bytes(spec, element_size)
    assert CachePlan.fit(spec, element_size, least, max_rows).slots >= 1
    with pytest.raises(ConfigError, match=re.escape(f"needs {least} bytes")) as caught:
        CachePlan.fit(spec, element_size, least - 1, max_rows)
    assert caught.value.param == "cache_bytes"


@given(specs, st.integers(1, 50))
def test_memory_beyond_full_rows_is_not_taken(spec: CacheSpec, max_rows: int) -> None:
    plan = CachePlan.fit(spec, 4, 10**12, max_rows)
    assert (plan.slots, plan.blocks) == (max_rows, max_rows * blocks_for(spec.max_positions) + 1)


def test_slots_are_planned_for_a_usual_length_and_not_for_a_quarter_of_a_long_context() -> None:
    kosmos = CacheSpec(layers=24, kv_heads=32, head_dim=64, max_positions=2048)
    plan = CachePlan.fit(kosmos, 2, 3 * 2**30, 64)
    assert plan.granted(64) == "64 slots, 1024 blocks of 16 positions (3.0 GiB); max_batch asked for 64"
    assert CachePlan.fit(kosmos, 2, 3 * 2**30, 64, expected=2048).slots == 32, "a quarter of the context is enough"


@pytest.mark.parametrize(("positions", "blocks"), [(0, 0), (1, 1), (16, 1), (17, 2), (32, 2), (33, 3)])
def test_positions_are_rounded_up_to_blocks(positions: int, blocks: int) -> None:
    assert blocks_for(positions) == blocks


def test_the_padding_block_is_never_given_out() -> None:
    pool = BlockPool(5)
    assert sorted(pool.take(pool.free)) == [1, 2, 3, 4]
    assert (pool.free, pool.used, pool.total) == (0, 4, 4)


def test_blocks_come_back_for_others() -> None:
    pool = BlockPool(5)
    mine, other = pool.take(2), pool.take(2)
    pool.give_back(mine)
    assert pool.used == 2
    assert set(pool.take(2)) == set(mine)
    assert not set(mine) & set(other)


def test_misuse_is_caught() -> None:
    pool = BlockPool(3)
    with pytest.raises(AssertionError, match="3 blocks asked, 2 free"):
        pool.take(3)
    with pytest.raises(AssertionError, match="given back twice"):
        pool.give_back([1])
