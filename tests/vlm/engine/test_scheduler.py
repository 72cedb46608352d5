"""Who runs, and on what: random lives of many sequences against a model of rows that only follows the moves."""

from __future__ import annotations

from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vlm.engine.blocks import BLOCK_SIZE, BlockPool, blocks_for
from vlm.engine.scheduler import Batch, Scheduler
from vlm.engine.sequence import Sequence
from vlm.types import Sampling

MAX_POSITIONS = 6 * BLOCK_SIZE


class Words:
    """Stands in for a prompt, a detokenizer: the scheduler counts, and reads nothing."""

    def __init__(self, prompt: int) -> None:
        self.prompt_ids = (0,) * prompt


arrivals = count(1)


def sequence(prompt: int = 1, max_tokens: int = 4) -> Sequence:
    """One that arrives after all before it."""
    stand_in: Any = Words(prompt)
    return Sequence(stand_in, Sampling(max_tokens=max_tokens), stand_in, arrived=next(arrivals))


def scheduler(blocks: int = 100, rows: int = 4, max_prefill: int = 8) -> Scheduler:
    return Scheduler(BlockPool(blocks + 1), rows, max_prefill)


def commit(batch: Batch) -> list[Sequence]:
    """Everyone gets a token; returns those that this ended."""
    for one in (*batch.decode, *batch.prefill):
        one.generated.append(0)
    return [one for one in (*batch.decode, *batch.prefill) if one.budget == 0]


def added(to: Scheduler, *sequences: Sequence) -> list[Sequence]:
    for one in sequences:
        to.add(one)
    return list(sequences)


def test_first_come_first_served() -> None:
    schedule = scheduler(rows=2)
    first, second, third = added(schedule, sequence(), sequence(), sequence())
    batch = schedule.schedule()
    assert (batch.prefill, batch.decode, batch.moves) == ((first, second), (), ())
    assert schedule.schedule().decode == (first, second)
    schedule.remove(first)
    assert schedule.schedule().prefill == (third,)


def test_a_short_prompt_does_not_overtake_a_long_one() -> None:
    schedule = scheduler(blocks=4)
    runs, long, short = added(schedule, sequence(33), sequence(32), sequence(1))
    assert schedule.schedule().prefill == (runs,)
    schedule.remove(runs)
    assert schedule.schedule().prefill == (long, short)


def test_at_most_max_prefill_join_in_one_step() -> None:
    schedule = scheduler(rows=5, max_prefill=2)
    added(schedule, *(sequence() for _ in range(5)))
    sizes = [(len(batch.prefill), len(batch.decode)) for batch in (schedule.schedule() for _ in range(3))]
    assert sizes == [(2, 0), (2, 2), (1, 4)]


def test_what_is_left_of_a_row_moves_into_the_hole() -> None:
    schedule = scheduler()
    first, second, third = added(schedule, sequence(), sequence(), sequence())
    schedule.schedule()
    schedule.remove(first)
    batch = schedule.schedule()
    assert [(move.source, move.target) for move in batch.moves] == [(2, 0)]
    assert batch.decode == (third, second)
    assert (third.row, second.row, first.row) == (0, 1, None)


def test_moves_come_in_the_order_in_which_they_happened() -> None:
    """The last row moves into the first hole, and leaves it to the next last row."""
    schedule = scheduler()
    first, second, third, fourth = added(schedule, *(sequence() for _ in range(4)))
    schedule.schedule()
    schedule.remove(first)
    schedule.remove(fourth)
    batch = schedule.schedule()
    assert [(move.source, move.target) for move in batch.moves] == [(3, 0), (2, 0)]
    assert batch.decode == (third, second)


def test_the_newest_is_preempted_and_comes_back_first() -> None:
    schedule = scheduler(blocks=2)
    old, new, waiting = added(schedule, sequence(BLOCK_SIZE), sequence(BLOCK_SIZE), sequence(1))
    commit(schedule.schedule())
    batch = schedule.schedule()  # both need a second block
    assert batch.decode == (old,)
    assert not batch.prefill
    assert list(schedule.waiting) == [new, waiting]
    assert (new.preemptions, new.row, new.blocks) == (1, None, [])
    schedule.remove(old)
    assert schedule.schedule().prefill == (new,)
    assert len(new.blocks) == blocks_for(new.length) == 2


def test_several_preempted_keep_their_order() -> None:
    schedule = scheduler(blocks=3)
    sequences = added(schedule, *(sequence(BLOCK_SIZE) for _ in range(3)))
    commit(schedule.schedule())
    assert schedule.schedule().decode == (sequences[0],)
    assert list(schedule.waiting) == sequences[1:]


def test_removing_frees_at_once_and_twice_is_harmless() -> None:
    schedule = scheduler()
    runs, waits = sequence(40), sequence(40)
    schedule.add(runs)
    schedule.schedule()
    schedule.add(waits)
    for one in (runs, waits, runs, waits, sequence()):
        schedule.remove(one)
    assert schedule.pool.used == 0
    assert not schedule.running
    assert not schedule.waiting


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=30), st.integers(6, 12), st.integers(1, 5))
def test_nobody_starves(sizes: list[tuple[int, int]], blocks: int, rows: int) -> None:
    """Each step gives a token to the oldest that runs, so the work of all is a bound on the steps."""
    schedule = scheduler(blocks, rows)
    left = set(added(schedule, *(sequence(*size) for size in sizes)))
    for _ in range(sum(max_tokens for _, max_tokens in sizes)):
        for one in commit(schedule.schedule()):
            schedule.remove(one)
            left.remove(one)
    assert not left
    assert schedule.pool.used == 0


class Lives(RuleBasedStateMachine):
    """Clients come and go at any moment; ``rows`` follows the moves alone, as the runner's memory does."""

    @initialize(blocks=st.integers(6, 16), rows=st.integers(1, 6), max_prefill=st.integers(1, 3))
    def start(self, blocks: int, rows: int, max_prefill: int) -> None:
        self.schedule = scheduler(blocks, rows, max_prefill)
        self.rows: list[Sequence | None] = [None] * rows
        self.order: list[Sequence] = []  # everyone alive, as they came
        self.ended: list[Sequence] = []
        self.joined: set[Sequence] = set()

    @rule(prompt=st.integers(1, MAX_POSITIONS - 20), tokens=st.integers(1, 20))
    def add(self, prompt: int, tokens: int) -> None:
        self.order += added(self.schedule, sequence(prompt, tokens))

    @rule(pick=st.randoms(use_true_random=False), failing=st.booleans())
    def step(self, pick: Any, failing: bool) -> None:
        batch = self.schedule.schedule()
        self.follow(batch)
        ended = commit(batch)
        if failing:
            ended = [*batch.prefill, *(one for one in ended if one not in batch.prefill)]
        pick.shuffle(ended)
        self.end(ended)

    @precondition(lambda self: self.order)
    @rule(pick=st.randoms(use_true_random=False))
    def leave(self, pick: Any) -> None:
        self.end([pick.choice(self.order)])

    def follow(self, batch: Batch) -> None:
        for move in batch.moves:
            self.rows[move.target] = self.rows[move.source]
        assert self.rows[: len(batch.decode)] == list(batch.decode), "the moves lead to the right owners"
        assert len(batch.prefill) <= self.schedule.max_prefill
        for place, one in enumerate(batch.prefill, start=len(batch.decode)):
            assert one.row == place
            self.rows[place] = one
        fresh = [one for one in batch.prefill if one not in self.joined]
        never = [one for one in self.order if one not in self.joined]
        assert fresh == never[: len(fresh)], "who joins for the first time has waited longest"
        self.joined.update(fresh)
        assert batch.decode or batch.prefill or not self.order, "a step always does something"

    def end(self, sequences: list[Sequence]) -> None:
        for one in sequences:
            used = self.schedule.pool.used
            held = len(one.blocks)
            self.schedule.remove(one)
            assert self.schedule.pool.used == used - held
            self.order.remove(one)
            self.ended.append(one)

    @invariant()
    def holds(self) -> None:
        running, waiting = self.schedule.running, self.schedule.waiting
        assert [one.row for one in running] == list(range(len(running)))
        assert all(one.row is None and not one.blocks for one in (*waiting, *self.ended))
        blocks = [block for one in running for block in one.blocks]
        assert len(blocks) == len(set(blocks)) == self.schedule.pool.used
        assert 0 not in blocks
        assert sorted((*running, *waiting), key=id) == sorted(self.order, key=id), "everyone alive is in one place"
        # A token that was chosen since may still lack its block: the next step gives it before anyone reads it.
        assert all(blocks_for(one.length - 1) <= len(one.blocks) <= blocks_for(one.length) for one in running)

    def teardown(self) -> None:
        for _ in range(sum(one.budget for one in getattr(self, "order", ()))):
            batch = self.schedule.schedule()
            self.follow(batch)
            self.end(commit(batch))
        assert not getattr(self, "order", ()), "who stays is served to the end"


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
