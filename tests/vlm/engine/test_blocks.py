"""What a memory budget buys, and that a block has one owner."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vlm.engine.test_scheduler import added, sequence
from vlm.engine.blocks import BLOCK_SIZE, MAX_BEAMS, BlockPool, CachePlan, blocks_for, longest_with_beams
from vlm.engine.scheduler import Scheduler
from vlm.errors import ConfigError
from vlm.models.processor import CacheSpec

specs = st.builds(
    CacheSpec, st.just(1), st.just(1), st.integers(1, 2048), st.integers(1, 2000), st.integers(0, 1000),
    st.sampled_from([0, 0, 1, 16, 730]),
)  # fmt: skip


def full_blocks(spec: CacheSpec) -> int:
    """Blocks that one sequence of full length needs: the last block of a prefix is copied, so it is there twice."""
    return blocks_for(spec.max_positions) + (1 if spec.prefix_positions else 0)


def least_bytes(spec: CacheSpec, element_size: int, slots: int = 1) -> int:
    """Cross attention of the slots, one sequence of full length, and the block for padding."""
    position = spec.bytes_per_position(element_size)
    return slots * spec.cross_positions * position + (full_blocks(spec) + 1) * BLOCK_SIZE * position


@given(specs, st.sampled_from([2, 4]), st.integers(1, 300), st.floats(1, 8) | st.floats(1, 500))
def test_a_plan_keeps_its_budget_and_always_holds_one_full_sequence(
    spec: CacheSpec, element_size: int, max_rows: int, share: float
) -> None:
    budget = int(least_bytes(spec, element_size) * share)
    plan = CachePlan.fit(spec, element_size, budget, max_rows)
    per_position = spec.bytes_per_position(element_size)
    assert plan.bytes == per_position * (plan.slots * spec.cross_positions + plan.blocks * BLOCK_SIZE) <= budget
    assert 1 <= plan.slots <= max_rows
    assert BlockPool(plan.blocks).free >= full_blocks(spec)


@given(specs, st.sampled_from([2, 4]), st.integers(2, 5), st.integers(-2, 2), st.integers(-1, 1))
def test_a_slot_more_is_not_bought_with_a_block_of_the_full_sequence(
    spec: CacheSpec, element_size: int, slots: int, blocks: int, byte: int
) -> None:
    """The budget is a few blocks, or a byte, off what so many slots and one full sequence need together."""
    block = BLOCK_SIZE * spec.bytes_per_position(element_size)
    budget = max(least_bytes(spec, element_size), least_bytes(spec, element_size, slots) + blocks * block + byte)
    plan = CachePlan.fit(spec, element_size, budget, 300)
    assert BlockPool(plan.blocks).free >= full_blocks(spec)
    assert plan.bytes <= budget


@pytest.mark.parametrize(("missing", "slots"), [(0, 3), (1, 2)])
def test_three_slots_and_a_full_sequence_fit_to_the_byte(missing: int, slots: int) -> None:
    spec = CacheSpec(1, 1, 1, max_positions=8 * BLOCK_SIZE, cross_positions=100)
    plan = CachePlan.fit(spec, 4, least_bytes(spec, 4, 3) - missing, 300)
    assert plan.slots == slots
    assert BlockPool(plan.blocks).free >= 8


def test_a_plan_for_beams_has_blocks_and_rows_for_them() -> None:
    spec = CacheSpec(1, 1, 1, max_positions=3 * BLOCK_SIZE)
    plan = CachePlan.fit(spec, 4, 10**9, max_slots=4, num_beams=3)
    assert (plan.slots, plan.rows, plan.blocks) == (4, 12, 4 * 3 * 3 + 1)
    assert CachePlan.fit(spec, 4, 10**9, max_slots=1).rows == MAX_BEAMS, "any one sequence may have that many beams"


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
    assert (plan.slots, plan.blocks) == (max_rows, max_rows * full_blocks(spec) + 1)


@pytest.mark.parametrize(
    ("blocks", "prompt", "beams", "longest"),
    [(8, 40, 4, 48), (12, 33, 3, 80), (20, 70, 4, 128), (5, 15, 4, 16), (5, 16, 4, 32), (4, 33, 4, 32), (1, 40, 2, 32)],
)
def test_beams_share_the_whole_blocks_of_their_prompt_and_divide_the_rest(
    blocks: int, prompt: int, beams: int, longest: int
) -> None:
    assert longest_with_beams(blocks, prompt, beams) == longest


@given(st.integers(1, 200), st.integers(1, 600), st.integers(1, MAX_BEAMS))
def test_beams_that_all_diverge_can_reach_their_longest_and_no_further(blocks: int, prompt: int, beams: int) -> None:
    shared = prompt // BLOCK_SIZE
    reached = blocks_for(longest_with_beams(blocks, prompt, beams)) - shared
    assert beams * reached <= max(0, blocks - shared) < beams * (reached + 1)


@pytest.mark.parametrize("prefix", [0, 1, 16, 21])
def test_the_least_budget_starts_a_sequence_of_full_length(prefix: int) -> None:
    spec = replace(CacheSpec(1, 1, 1, max_positions=70), prefix_positions=prefix)
    plan = CachePlan.fit(spec, 4, least_bytes(spec, 4), 8)
    schedule = Scheduler(BlockPool(plan.blocks), plan.rows, 1)
    (one,) = added(schedule, sequence(70 - prefix, image=b"a" if prefix else None, length=prefix))
    assert schedule.schedule().prefill == (one,)


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
    with pytest.raises(AssertionError, match="3 blocks requested, 2 free"):
        pool.take(3)
    with pytest.raises(AssertionError, match="given back twice"):
        pool.give_back([1])
