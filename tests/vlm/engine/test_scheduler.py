"""Random lives of many sequences, against a memory that changes only as the batches say."""

from __future__ import annotations

import random
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vlm.engine.beams import Continuation
from vlm.engine.blocks import BLOCK_SIZE, BlockPool, blocks_for, longest_with_beams
from vlm.engine.scheduler import GATHERED, PATIENCE, Batch, Scheduler
from vlm.engine.sequence import Beam, Sequence
from vlm.types import Sampling

MAX_POSITIONS = 6 * BLOCK_SIZE
PREFIX = BLOCK_SIZE + 5
SHORT = 5  # less than a block: nothing is shared, only copied


class Words:
    """Stands in for inputs and output: the scheduler counts, and reads nothing."""

    def __init__(self, prompt: int, crops: int = 1) -> None:
        self.prompt_ids = (0,) * prompt
        self.crops = crops


arrivals = count(1)


def sequence(
    prompt: int = 1,
    max_tokens: int = 4,
    beams: int = 1,
    image: bytes | None = None,
    length: int = PREFIX,
    *,
    crops: int = 1,
) -> Sequence:
    """One that arrives after all before it; with an ``image``, so many positions of it stand before its prompt."""
    stand_in: Any = Words(prompt, crops)
    how = Sampling(max_tokens=max_tokens, num_beams=beams, length_penalty=1.0)
    prefix = 0 if image is None else length
    return Sequence(stand_in, how, stand_in, image_key=image, prefix=prefix, arrived=next(arrivals))


def scheduler(blocks: int = 100, rows: int = 4, max_prefill: int = 8) -> Scheduler:
    return Scheduler(BlockPool(blocks + 1), rows, max_prefill)


def participants(batch: Batch) -> list[Sequence]:
    """Those that get a token."""
    beams = [beam for one in batch.prefill for beam in one.beams]
    return list(dict.fromkeys(beam.sequence for beam in (*batch.decode.beams, *beams)))


def commit(schedule: Scheduler, batch: Batch, pick: random.Random | None = None) -> list[Sequence]:
    """Everyone gets a token; returns those that this ended."""
    pick = pick or random.Random(0)
    for one in participants(batch):
        if one.num_beams == 1:
            one.generated.append(pick.randrange(1000))
            continue
        parents = [pick.randrange(one.num_beams) for _ in one.beams]
        schedule.branch(one, [Continuation(parent, pick.randrange(1000), None, 0.0, ends=False) for parent in parents])
    return [one for one in participants(batch) if one.beams[0].budget == 0]


def added(to: Scheduler, *sequences: Sequence) -> list[Sequence]:
    for one in sequences:
        to.add(one)
    return list(sequences)


def decoding(batch: Batch) -> tuple[Sequence, ...]:
    return tuple(beam.sequence for beam in batch.decode.beams)


def test_first_come_first_served() -> None:
    schedule = scheduler(rows=2)
    first, second, third = added(schedule, sequence(), sequence(), sequence())
    batch = schedule.schedule()
    assert (batch.prefill, batch.decode.beams, batch.decode.moves) == ((first, second), (), ())
    assert decoding(schedule.schedule()) == (first, second)
    schedule.remove(first)
    assert schedule.schedule().prefill == (third,)


def unstreamed(count: int, max_tokens: int = 50) -> list[Sequence]:
    found = [sequence(max_tokens=max_tokens) for _ in range(count)]
    for one in found:
        one.stream = False
    return found


def with_running(count: int) -> Scheduler:
    """So many run already."""
    schedule = scheduler(blocks=200, rows=40, max_prefill=40)
    added(schedule, *unstreamed(count))
    assert len(schedule.schedule().prefill) == count
    return schedule


def test_answers_that_are_not_streamed_start_together() -> None:
    """One for every 8 that run: the second of two that wait does not come before the third step."""
    schedule = with_running(2 * GATHERED)
    (first,) = added(schedule, *unstreamed(1))
    assert not schedule.schedule().prefill
    assert not schedule.schedule().prefill
    (second,) = added(schedule, *unstreamed(1))
    assert schedule.schedule().prefill == (first, second)


def test_nobody_waits_for_others_for_long() -> None:
    schedule = with_running(2 * GATHERED)
    for one in unstreamed(2):
        schedule.add(one)
        steps = [schedule.schedule().prefill for _ in range(PATIENCE + 1)]
        assert steps == [()] * PATIENCE + [(one,)]


def test_those_that_one_step_cannot_start_wait_for_others_once() -> None:
    schedule = with_running(4 * GATHERED)
    schedule.max_prefill = 1
    waiting = added(schedule, *unstreamed(3))
    steps = [schedule.schedule().prefill for _ in range(PATIENCE + 3)]
    assert steps == [()] * PATIENCE + [(one,) for one in waiting]


def test_a_streamed_answer_starts_at_once_and_takes_others_along() -> None:
    schedule = with_running(2 * GATHERED)
    (quiet,) = added(schedule, *unstreamed(1))
    assert not schedule.schedule().prefill
    (streamed,) = added(schedule, sequence())
    assert schedule.schedule().prefill == (quiet, streamed)


@pytest.mark.parametrize("running", [0, 1, 2 * GATHERED - 1])
def test_one_starts_at_once_beside_few_others(running: int) -> None:
    schedule = with_running(running)
    (one,) = added(schedule, *unstreamed(1))
    assert schedule.schedule().prefill == (one,)


def test_the_last_free_slot_is_given_out_though_many_wait() -> None:
    """What could start counts, and not what waits: with one slot free, only one could."""
    schedule = with_running(40)
    (last, *others) = added(schedule, *unstreamed(10))
    schedule.remove(schedule.running[0])
    steps = [schedule.schedule().prefill for _ in range(PATIENCE + 2)]
    assert steps == [()] * PATIENCE + [(last,), ()]
    assert [*schedule.waiting] == others


def test_a_short_prompt_does_not_overtake_a_long_one() -> None:
    schedule = scheduler(blocks=4)
    runs, long, short = added(schedule, sequence(33), sequence(32), sequence(1))
    assert schedule.schedule().prefill == (runs,)
    schedule.remove(runs)
    assert schedule.schedule().prefill == (long, short)


def test_crops_to_be_encoded_count_against_max_prefill() -> None:
    """They delay the others' next token as much as so many images; but one image always starts, however many it has."""
    schedule = scheduler(max_prefill=8)
    large, first, second, third = added(
        schedule,
        sequence(image=b"large", crops=13),
        sequence(image=b"first", crops=5),
        sequence(image=b"second", crops=4),
        sequence(image=b"third", crops=4),
    )
    assert schedule.schedule().prefill == (large,)
    assert schedule.schedule().prefill == (first,)
    assert schedule.schedule().prefill == (second, third)


def test_an_image_whose_prefix_is_known_counts_once() -> None:
    schedule = scheduler(rows=8, max_prefill=3)
    (one,) = added(schedule, sequence(image=b"seen", crops=13))
    batch = schedule.schedule()
    assert batch.prefill == (one,)
    schedule.prefixes.computed([job.prefix for job in batch.prefixes])
    commit(schedule, batch)
    others = added(schedule, *(sequence(image=b"seen", crops=13) for _ in range(4)))
    assert schedule.schedule().prefill == tuple(others[:3])


def test_at_most_max_prefill_start_in_one_step() -> None:
    schedule = scheduler(rows=5, max_prefill=2)
    added(schedule, *(sequence() for _ in range(5)))
    sizes = [(len(batch.prefill), len(batch.decode.beams)) for batch in (schedule.schedule() for _ in range(3))]
    assert sizes == [(2, 0), (2, 2), (1, 4)]


def test_the_last_slot_moves_into_the_hole() -> None:
    schedule = scheduler()
    first, second, third = added(schedule, sequence(), sequence(), sequence())
    schedule.schedule()
    schedule.remove(first)
    batch = schedule.schedule()
    assert [(move.source, move.target) for move in batch.decode.moves] == [(2, 0)]
    assert decoding(batch) == (third, second)
    assert batch.decode.sources == (2, 1)
    assert (third.slot, second.slot, first.slot) == (0, 1, None)


def test_moves_come_in_the_order_in_which_they_happened() -> None:
    """The last slot moves into the first hole, and leaves it to the next last one."""
    schedule = scheduler()
    first, second, third, fourth = added(schedule, *(sequence() for _ in range(4)))
    schedule.schedule()
    schedule.remove(first)
    schedule.remove(fourth)
    batch = schedule.schedule()
    assert [(move.source, move.target) for move in batch.decode.moves] == [(3, 0), (2, 0)]
    assert decoding(batch) == (third, second)


def test_the_newest_is_preempted_and_comes_back_first() -> None:
    schedule = scheduler(blocks=2)
    old, new, waiting = added(schedule, sequence(BLOCK_SIZE), sequence(BLOCK_SIZE), sequence(1))
    commit(schedule, schedule.schedule())
    batch = schedule.schedule()  # both need a second block
    assert decoding(batch) == (old,)
    assert not batch.prefill
    assert list(schedule.waiting) == [new, waiting]
    assert (new.preemptions, new.slot, new.beams) == (1, None, [])
    schedule.remove(old)
    assert schedule.schedule().prefill == (new,)
    assert len(new.beams[0].blocks) == blocks_for(new.length) == 2


def test_several_preempted_keep_their_order() -> None:
    schedule = scheduler(blocks=3)
    sequences = added(schedule, *(sequence(BLOCK_SIZE) for _ in range(3)))
    commit(schedule, schedule.schedule())
    assert decoding(schedule.schedule()) == (sequences[0],)
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


def test_beams_share_the_prompt_and_copy_the_block_that_they_write_to() -> None:
    schedule = scheduler()
    (one,) = added(schedule, sequence(2 * BLOCK_SIZE + 1, beams=3))
    commit(schedule, schedule.schedule())
    assert schedule.pool.used == 3
    batch = schedule.schedule()
    assert len(batch.decode.beams) == 3
    assert batch.decode.slots == (0, 0, 0)
    assert len(batch.decode.copies) == 2, "the last one keeps the block itself"
    assert schedule.pool.used == 5
    assert len({beam.blocks[0] for beam in one.beams}) == 1
    assert len({beam.blocks[2] for beam in one.beams}) == 3
    schedule.remove(one)
    assert schedule.pool.used == 0


def test_a_preempted_beam_search_starts_from_scratch() -> None:
    schedule = scheduler(blocks=4, rows=8)
    old, search = added(schedule, sequence(BLOCK_SIZE, 60), sequence(1, 60, beams=2))
    for _ in range(60):
        assert len(search.beams) in (0, 2)
        commit(schedule, schedule.schedule())
        if search.preemptions:
            break
    assert search.preemptions
    assert not search.beams
    schedule.remove(old)
    schedule.schedule()
    assert [beam.generated for beam in search.beams] == [[], []]


def test_a_search_that_is_preempted_notes_each_block_that_it_held_once() -> None:
    schedule = scheduler()
    (search,) = added(schedule, sequence(2 * BLOCK_SIZE + 1, beams=2))
    commit(schedule, schedule.schedule())
    schedule.schedule()
    assert schedule.pool.used == 4, "two that they share, and one each"
    schedule._preempt(search)
    assert search.held == 4


def test_no_copy_is_made_for_a_beam_that_is_preempted_in_the_same_step() -> None:
    """The search has copied a block for its first beam when there is none for its second."""
    schedule = scheduler(blocks=4)
    old, search = added(schedule, sequence(1, 9), sequence(1, 9, beams=3))
    batch = schedule.schedule()
    assert batch.prefill == (old, search)
    schedule.pool.take(schedule.pool.free - 1)
    commit(schedule, batch)
    decode = schedule.schedule().decode
    assert search.preemptions == 1
    assert decode.beams == tuple(old.beams)
    assert decode.copies == ()


def test_many_questions_about_one_image_hold_one_prefix() -> None:
    schedule = scheduler(rows=8)
    added(schedule, *(sequence(1, image=b"a") for _ in range(4)), sequence(1, image=b"b"))
    batch = schedule.schedule()
    assert [job.prefix.key for job in batch.prefixes] == [b"a", b"b"]
    assert len(batch.prefill) == len(batch.copies) == 5
    assert schedule.pool.used == 2 * blocks_for(PREFIX) + 5
    assert schedule.prefixes.hits == 3


def test_a_prefix_stays_until_its_room_is_needed() -> None:
    schedule = scheduler(blocks=6)
    (first,) = added(schedule, sequence(1, image=b"a"))
    schedule.prefixes.computed([job.prefix for job in schedule.schedule().prefixes])
    schedule.remove(first)
    assert schedule.pool.used == schedule.prefixes.blocks == blocks_for(PREFIX)
    (again,) = added(schedule, sequence(1, image=b"a"))
    assert not schedule.schedule().prefixes
    schedule.remove(again)
    added(schedule, sequence(6 * BLOCK_SIZE - 3))
    assert schedule.schedule().prefill
    assert len(schedule.prefixes) == 0


def test_a_known_prefix_is_not_given_away_before_it_is_copied() -> None:
    """It fills no block, so its reader shares none with it: only its being wanted holds it."""
    schedule = scheduler(blocks=4)
    (first,) = added(schedule, sequence(1, image=b"a", length=SHORT))
    schedule.prefixes.computed(job.prefix for job in schedule.schedule().prefixes)
    schedule.remove(first)
    added(schedule, sequence(20, image=b"a", length=SHORT), sequence(1, image=b"b", length=SHORT))
    batch = schedule.schedule()
    assert len(batch.prefill) == 1
    assert not batch.prefixes


def test_a_preempted_search_waits_until_it_could_hold_what_it_held() -> None:
    schedule, pick = scheduler(blocks=16, rows=12), random.Random(2)
    _, *searches = added(schedule, sequence(BLOCK_SIZE, 240), *(sequence(1, 90, beams=4) for _ in range(2)))
    for _ in range(240 + 3 * 2 * 90):
        for one in commit(schedule, schedule.schedule(), pick):
            schedule.remove(one)
    assert not schedule.running
    assert not schedule.waiting
    assert [one.preemptions <= 2 for one in searches] == [True, True]
    assert any(one.preemptions for one in searches)


@pytest.mark.parametrize(("blocks", "prompt", "beams"), [(8, 40, 4), (12, 33, 3), (20, 70, 4)])
def test_a_search_as_long_as_is_allowed_never_preempts_itself(blocks: int, prompt: int, beams: int) -> None:
    """Its beams diverge at once, and never share a block again."""
    schedule = scheduler(blocks, rows=beams)
    tokens = longest_with_beams(blocks, prompt, beams) - prompt + 1  # the last one needs no position
    (search,) = added(schedule, sequence(prompt, tokens, beams))
    for _ in range(tokens):
        assert len(participants(schedule.schedule())) == 1
        apart = [Continuation(parent, parent, None, 0.0, ends=False) for parent in range(beams)]
        schedule.branch(search, apart)
    assert (search.preemptions, search.beams[0].budget) == (0, 0)


def with_idle_prefixes(blocks: int, *images: bytes) -> Scheduler:
    """Each image has been asked about, in this order, and nobody asks about any now."""
    schedule = scheduler(blocks)
    for image in images:
        (one,) = added(schedule, sequence(1, image=image))
        schedule.prefixes.computed([job.prefix for job in schedule.schedule().prefixes])
        schedule.remove(one)
    assert len(schedule.prefixes) == len(set(images))
    return schedule


def test_the_prefix_of_a_sequence_that_starts_is_not_evicted_for_it() -> None:
    """It is the least recently used one, but the other goes."""
    schedule = with_idle_prefixes(6, b"a", b"b")
    (one,) = added(schedule, sequence(3 * BLOCK_SIZE, image=b"a"))
    batch = schedule.schedule()
    assert batch.prefill == (one,)
    assert not batch.prefixes
    assert schedule.prefixes.find(b"b") is None


def test_a_sequence_waits_if_only_its_own_prefix_could_make_room() -> None:
    schedule = with_idle_prefixes(4, b"a")
    added(schedule, sequence(1))
    schedule.schedule()
    (one,) = added(schedule, sequence(2 * BLOCK_SIZE, image=b"a"))
    assert not schedule.schedule().prefill
    assert schedule.prefixes.find(b"a") is not None
    assert list(schedule.waiting) == [one]


def test_a_prefix_that_is_asked_for_again_outlives_a_later_one() -> None:
    schedule = with_idle_prefixes(6, b"a", b"b", b"a")
    added(schedule, sequence(3 * BLOCK_SIZE))
    assert schedule.schedule().prefill
    assert (schedule.prefixes.find(b"a") is None, schedule.prefixes.find(b"b") is None) == (False, True)


def test_a_preempted_sequence_that_finds_its_own_image_is_not_a_hit() -> None:
    """What it encoded itself it did not find there."""
    schedule = scheduler(blocks=8)
    old, new = added(schedule, sequence(BLOCK_SIZE, 99), sequence(6, 99, image=b"a"))
    batch = schedule.schedule()
    schedule.prefixes.computed([job.prefix for job in batch.prefixes])
    assert new.note_image(cached=False), "as the runner notes it"
    for _ in range(99):
        commit(schedule, batch)
        batch = schedule.schedule()
        if new.preemptions:
            break
    schedule.remove(old)
    again = schedule.schedule()
    assert again.prefill == (new,)
    assert not again.prefixes
    assert (schedule.prefixes.hits, new.image_cached) == (0, False)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3)), max_size=20),
    st.integers(15, 30),
    st.integers(3, 6),
)
def test_no_sequence_starves(sizes: list[tuple[int, int, int]], blocks: int, rows: int) -> None:
    """Each step gives a token to the oldest that runs."""
    schedule = scheduler(blocks, rows)
    left = set(added(schedule, *(sequence(*size) for size in sizes)))
    for _ in range((1 + len(sizes)) * sum(max_tokens for _, max_tokens, _ in sizes)):
        for one in commit(schedule, schedule.schedule()):
            schedule.remove(one)
            left.remove(one)
    assert not left
    assert schedule.pool.used == 0


Content = tuple[object, ...]


def content(beam: Beam, position: int) -> Content:
    """What stands at a position: it depends on all that came before it, as keys and values do."""
    if position < beam.sequence.prefix:
        return ("image", beam.sequence.image_key, position)
    written = position - beam.sequence.prefix - len(beam.inputs.prompt_ids) + 1
    return (id(beam.sequence) if beam.sequence.prefix == 0 else beam.sequence.image_key, id(beam.sequence), position,
            *beam.generated[: max(0, written)])  # fmt: skip


class Memory:
    """Blocks, slots and rows, which change only as batches say."""

    def __init__(self, blocks: int, rows: int) -> None:
        self.blocks: list[list[Content | None]] = [[None] * BLOCK_SIZE for _ in range(blocks + 1)]
        self.slots: list[Sequence | None] = [None] * rows
        self.rows: list[Sequence | None] = [None] * rows

    def follow(self, batch: Batch) -> None:
        work = batch.decode
        for move in work.moves:
            self.slots[move.target] = self.slots[move.source]
        self.rows[: len(work.beams)] = [self.rows[source] for source in work.sources]
        held = {block for beam in work.beams for block in beam.blocks}
        assert {one.target for one in work.copies} <= held, "no copy is made for a beam that was preempted since"
        self.copy([(one.source, one.target) for one in work.copies])
        for row, beam in enumerate(work.beams):
            assert beam.row == row
            assert self.rows[row] is beam.sequence, "a row goes on from one of the same sequence"
            assert self.slots[work.slots[row]] is beam.sequence
            self.write(beam, beam.length - 1)
        self.start_prefill(batch)
        for beam in (*work.beams, *(beam for one in batch.prefill for beam in one.beams)):
            self.check(beam)

    def start_prefill(self, batch: Batch) -> None:
        for job in batch.prefixes:
            for position in range(job.prefix.length):
                self.put(job.prefix.blocks, position, ("image", job.sequence.image_key, position))
        self.copy([(one.source, one.target) for one in batch.copies])
        row = len(batch.decode.beams)
        for one in batch.prefill:
            assert one.slot is not None
            self.slots[one.slot] = one
            for position in range(one.prefix, one.length):
                self.write(one.beams[0], position)
            for beam in one.beams:
                assert beam.row == row
                self.rows[row] = one
                row += 1

    def copy(self, pairs: list[tuple[int, int]]) -> None:
        read = [list(self.blocks[source]) for source, _ in pairs]
        for (_, target), values in zip(pairs, read, strict=True):
            self.blocks[target] = values

    def write(self, beam: Beam, position: int) -> None:
        self.put(beam.blocks, position, content(beam, position))

    def put(self, table: list[int], position: int, value: Content) -> None:
        self.blocks[table[position // BLOCK_SIZE]][position % BLOCK_SIZE] = value

    def check(self, beam: Beam) -> None:
        for position in range(beam.length):
            found = self.blocks[beam.blocks[position // BLOCK_SIZE]][position % BLOCK_SIZE]
            assert found == content(beam, position), "every beam reads what it has written itself, and nothing else"


class Lives(RuleBasedStateMachine):
    """Clients come and go at any moment."""

    @initialize(
        blocks=st.integers(20, 30), rows=st.integers(3, 7), max_prefill=st.integers(1, 3),
        prefix=st.sampled_from([SHORT, BLOCK_SIZE, PREFIX]),
    )  # fmt: skip
    def start(self, blocks: int, rows: int, max_prefill: int, prefix: int) -> None:
        self.prefix = prefix
        self.schedule = scheduler(blocks, rows, max_prefill)
        self.memory = Memory(blocks, rows)
        self.order: list[Sequence] = []  # everyone alive, as they came
        self.ended: list[Sequence] = []
        self.joined: set[Sequence] = set()

    @rule(prompt=st.integers(1, MAX_POSITIONS - 40), tokens=st.integers(1, 18), beams=st.sampled_from([1, 1, 2, 3]),
          image=st.sampled_from([None, None, b"a", b"b", b"c"]))  # fmt: skip
    def add(self, prompt: int, tokens: int, beams: int, image: bytes | None) -> None:
        self.order += added(self.schedule, sequence(prompt, tokens, beams, image, self.prefix))

    @rule(seed=st.integers(0, 2**20), failing=st.booleans())
    def step(self, seed: int, failing: bool) -> None:
        batch, pick = self.schedule.schedule(), random.Random(seed)
        self.follow(batch)
        ended = commit(self.schedule, batch, pick)
        prefixes = [job.prefix for job in batch.prefixes]
        if failing:
            ended = [*batch.prefill, *(one for one in ended if one not in batch.prefill)]
            self.schedule.prefixes.drop(prefixes)
        else:
            self.schedule.prefixes.computed(prefixes)
        pick.shuffle(ended)
        self.end(ended)

    @precondition(lambda self: self.order)
    @rule(pick=st.randoms(use_true_random=False))
    def leave(self, pick: Any) -> None:
        self.end([pick.choice(self.order)])

    def follow(self, batch: Batch) -> None:
        self.memory.follow(batch)
        assert len(batch.prefill) <= self.schedule.max_prefill
        fresh = [one for one in batch.prefill if one not in self.joined]
        never = [one for one in self.order if one not in self.joined]
        assert fresh == never[: len(fresh)], "those that start for the first time have waited longest"
        self.joined.update(fresh)
        assert participants(batch) or not self.order, "a step always does something"

    def end(self, sequences: list[Sequence]) -> None:
        for one in sequences:
            self.schedule.remove(one)
            self.order.remove(one)
            self.ended.append(one)

    @invariant()
    def holds(self) -> None:
        running, waiting = self.schedule.running, self.schedule.waiting
        assert [one.slot for one in running] == list(range(len(running)))
        assert all(one.slot is None and not one.beams for one in (*waiting, *self.ended))
        beams = [beam for one in running for beam in one.beams]
        held = {block for beam in beams for block in beam.blocks}
        assert len(held) + self.schedule.prefixes.blocks == self.schedule.pool.used
        assert 0 not in held
        assert sorted((*running, *waiting), key=id) == sorted(self.order, key=id), (
            "every sequence is running or waiting"
        )
        # A token that was chosen since may still lack its block: the next step gives it before anyone reads it.
        assert all(blocks_for(beam.length - 1) <= len(beam.blocks) <= blocks_for(beam.length) for beam in beams)

    def teardown(self) -> None:
        order = getattr(self, "order", ())
        for _ in range((1 + len(order)) * sum(one.sampling.max_tokens or 0 for one in order)):
            batch = self.schedule.schedule()
            self.follow(batch)
            self.schedule.prefixes.computed(job.prefix for job in batch.prefixes)
            self.end(commit(self.schedule, batch))
            if not self.order:
                break
        assert not getattr(self, "order", ()), "who stays is served to the end"


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
