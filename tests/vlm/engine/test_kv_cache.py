"""The paged cache against :class:`~vlm.layers.attention.Growing`, position by position, through a tiny transformer."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import torch
from torch import Tensor

from vlm.engine.blocks import BLOCK_SIZE, CachePlan, blocks_for
from vlm.engine.kv_cache import KVCache, Prompt
from vlm.layers.attention import Growing
from vlm.layers.transformer import LearnedPositions, TextTransformer, TransformerSpec
from vlm.models.processor import CacheSpec

WIDTH, ENCODER_WIDTH, POSITIONS, CROSS = 12, 8, 50, 9


def transformer(cross: bool, norm: str = "post") -> TextTransformer:
    spec = TransformerSpec(
        layers=2, width=WIDTH, heads=3, mlp_width=16, norm="pre" if norm == "pre" else "post",
        cross_width=ENCODER_WIDTH if cross else None, embedding_norm=True, final_norm=True,
    )  # fmt: skip
    model = TextTransformer(spec, LearnedPositions(POSITIONS, WIDTH))
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4, generator=generator)
    return model.eval()


@dataclass
class Row:
    """One sequence in both worlds: its input so far, its blocks, and the slow context."""

    inputs: Tensor  # [length, width]
    encoded: Tensor | None  # [encoder positions, encoder width]
    slow: Growing
    blocks: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.inputs)


class World:
    """Some sequences in rows 0.. of a cache, checked at every step."""

    def __init__(self, cross: bool, norm: str = "post", seed: int = 0) -> None:
        self.model = transformer(cross, norm)
        self.cross = cross
        self.generator = torch.Generator().manual_seed(seed)
        spec = CacheSpec(layers=2, kv_heads=3, head_dim=WIDTH // 3, max_positions=POSITIONS, cross_positions=9 * cross)
        self.cache = KVCache(spec, CachePlan(slots=6, blocks=30, bytes=0), torch.float32, torch.device("cpu"))
        self.free = list(range(1, 30))
        random.Random(seed).shuffle(self.free)
        self.rows: list[Row] = []
        self.slots: list[int] = []

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def row(self, length: int, encoded: int = 0) -> Row:
        """A new sequence, known to the slow context alone so far."""
        memory = self.normal(encoded, ENCODER_WIDTH) if self.cross else None
        keys_values = [] if memory is None else [self.model.cross_keys_values(i, memory[None]) for i in range(2)]
        return Row(self.normal(length, WIDTH), memory, Growing(keys_values))

    def prefill(self, *rows: Row) -> None:
        """Start new rows after those that run."""
        for row in rows:
            self.grow(row)
        lengths = [row.length for row in rows]
        embeddings = torch.nn.utils.rnn.pad_sequence([row.inputs for row in rows], batch_first=True)
        encoded = [row.encoded for row in rows if row.encoded is not None]
        prompt = Prompt(len(self.rows), [row.blocks for row in rows], lengths, [len(one) for one in encoded])
        cross = None
        if encoded:
            memory = torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True)
            cross = partial(self.model.cross_keys_values, encoded=memory)
        fast = self.model(embeddings, self.cache.prefill(prompt, cross))
        for row, hidden in zip(rows, fast, strict=True):
            torch.testing.assert_close(hidden[: row.length], self.slow(row, row.inputs), atol=1e-5, rtol=1e-4)
        self.rows += rows
        self.slots = list(range(len(self.rows)))

    def decode(self, steps: int = 1) -> None:
        """Give each row another position, ``steps`` times."""
        for _ in range(steps):
            new = self.normal(len(self.rows), 1, WIDTH)
            for row, embedding in zip(self.rows, new, strict=True):
                row.inputs = torch.cat([row.inputs, embedding])
                self.grow(row)
            context = self.cache.decode(
                [row.blocks for row in self.rows], [row.length - 1 for row in self.rows], self.slots
            )
            fast = self.model(new, context)
            for row, hidden, embedding in zip(self.rows, fast, new, strict=True):
                torch.testing.assert_close(hidden, self.slow(row, embedding), atol=1e-5, rtol=1e-4)

    def slow(self, row: Row, embeddings: Tensor) -> Tensor:
        row.slow.advance(len(embeddings))
        hidden: Tensor = self.model(embeddings[None], row.slow)[0]
        return hidden

    def leave(self, index: int) -> None:
        """As the scheduler has it: the last row moves into the hole, the blocks are free for others."""
        self.free += self.rows[index].blocks
        last = self.rows.pop()
        if index < len(self.rows):
            self.cache.move(len(self.rows), index)
            self.rows[index] = last
        self.slots.pop()

    def grow(self, row: Row) -> None:
        while len(row.blocks) < blocks_for(row.length):
            row.blocks.append(self.free.pop())


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("norm", ["pre", "post"])
@torch.inference_mode()
def test_rows_of_different_lengths_equal_the_slow_context(norm: str, cross: bool) -> None:
    world = World(cross, norm)
    world.prefill(world.row(1, 4), world.row(15, 9), world.row(17, 1), world.row(32, 9))
    world.decode(steps=18)  # to the last position of the longest, over the edges of blocks
    assert max(row.length for row in world.rows) == POSITIONS


@pytest.mark.parametrize("cross", [False, True])
@torch.inference_mode()
def test_starting_ending_and_moving_rows_change_nothing_for_the_others(cross: bool) -> None:
    world = World(cross, seed=1)
    world.prefill(world.row(3, 9), world.row(20, 2), world.row(7, 5))
    world.decode(2)
    world.leave(0)  # a short encoder row moves where a long one was
    world.prefill(world.row(16, 3))
    world.decode(2)
    world.leave(1)
    world.leave(0)
    world.decode(2)
    world.prefill(world.row(1, 9), world.row(2, 9))
    world.leave(2)
    world.decode(20)


@torch.inference_mode()
def test_a_lone_prompt_of_one_position_needs_no_mask() -> None:
    world = World(cross=True, seed=2)
    world.prefill(world.row(1, 9))
    world.decode(3)


@torch.inference_mode()
def test_random_starts_and_ends_equal_the_slow_context() -> None:
    world, rng = World(cross=True, seed=3), random.Random(3)
    for _ in range(40):
        joining = [world.row(rng.randint(1, 20), rng.randint(1, CROSS)) for _ in range(rng.randint(0, 2))]
        if joining and len(world.rows) + len(joining) <= 6:
            world.prefill(*joining)
        if world.rows:
            world.decode()
        for index in reversed(range(len(world.rows))):
            if world.rows[index].length > 25 or rng.random() < 0.1:
                world.leave(index)


def test_the_cache_takes_what_its_plan_says() -> None:
    spec = CacheSpec(layers=3, kv_heads=2, head_dim=4, max_positions=40, cross_positions=7)
    plan = CachePlan.fit(spec, 2, budget=100_000, max_slots=5)
    cache = KVCache(spec, plan, torch.bfloat16, torch.device("cpu"))
    assert sum(part.nbytes for part in (*cache._pool, *cache._cross)) == plan.bytes <= 100_000


@pytest.mark.parametrize("cross", [False, True])
@torch.inference_mode()
def test_beams_share_a_prompt_and_an_encoder_output(cross: bool) -> None:
    """One of two sequences goes on as three, each with words of its own, and one of those as two."""
    world = World(cross, seed=4)
    world.prefill(world.row(18, 4), world.row(5, 9))
    fork(world, [0, 0, 0, 1])
    world.decode(3)
    fork(world, [0, 2, 2, 3])
    world.decode(16)


@torch.inference_mode()
def test_as_many_beams_of_each_sequence_share_an_encoder_output() -> None:
    world = World(cross=True, seed=6)
    world.prefill(world.row(18, 4), world.row(5, 9))
    fork(world, [0, 0, 0, 1, 1, 1])
    world.decode(16)


@pytest.mark.parametrize(("lengths", "masked"), [((7,), False), ((7, 7), False), ((7, 6), True)])
@torch.inference_mode()
def test_rows_of_one_length_are_read_up_to_it_without_a_mask(lengths: tuple[int, ...], masked: bool) -> None:
    world = World(cross=False, seed=7)
    world.prefill(*(world.row(length) for length in lengths))
    world.decode(12)
    shape = world.cache.decode_shape([row.length for row in world.rows], world.slots)
    assert (shape.positions, shape.masked) == (world.rows[0].length + 1, masked)
    world.decode()


def fork(world: World, parents: list[int]) -> None:
    """Each row goes on from one of the same sequence: full blocks are shared, the last one is copied."""
    sources, targets, rows = [], [], []
    for parent in parents:
        before = world.rows[parent]
        row = replace(before, slow=copy.deepcopy(before.slow), blocks=list(before.blocks))
        if before.length % BLOCK_SIZE:
            sources.append(before.blocks[-1])
            row.blocks[-1] = world.free.pop()
            targets.append(row.blocks[-1])
        rows.append(row)
    world.cache.copy(sources, targets)
    world.slots = [world.slots[parent] for parent in parents]
    world.rows = rows


@torch.inference_mode()
def test_prompts_after_a_shared_prefix_equal_the_slow_context() -> None:
    """Twenty positions that see each other, then three prompts of which one has no prefix."""
    world = World(cross=False, seed=5)
    prefix = world.normal(20, WIDTH)
    blocks = [world.free.pop() for _ in range(blocks_for(20))]
    world.model(prefix[None], world.cache.prefill(Prompt(0, [blocks], [20], causal=False)))
    prompts, starts = [world.normal(length, WIDTH) for length in (1, 14, 6)], [20, 20, 0]
    slows = [Growing(prefix=start) for start in starts]
    tables = [[blocks[0], world.free.pop(), world.free.pop()], [blocks[0], world.free.pop(), world.free.pop()],
              [world.free.pop()]]  # fmt: skip
    world.cache.copy([blocks[1], blocks[1]], [tables[0][1], tables[1][1]])
    padded = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
    fast = world.model(padded, world.cache.prefill(Prompt(0, tables, [1, 14, 6], starts=starts)))
    for prompt, start, slow, hidden, table in zip(prompts, starts, slows, fast, tables, strict=True):
        whole = torch.cat([prefix[:start], prompt])
        row = Row(whole, None, slow, table)
        expected = world.slow(row, whole)
        torch.testing.assert_close(hidden[: len(prompt)], expected[start:], atol=1e-5, rtol=1e-4)
        world.rows.append(row)
        world.slots.append(len(world.slots))
    world.decode(12)
