"""One token a row, against transformers' own logits processors one row at a time, and against arithmetic."""

from __future__ import annotations

import random
from collections.abc import Sequence as Rows
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor, TopPLogitsWarper

from vlm.engine.logits import sample_nucleus
from vlm.engine.output import OutputText
from vlm.engine.repeats import repeating
from vlm.engine.sampler import Sampler, _BatchSettings
from vlm.engine.sequence import Beam, Sequence
from vlm.models.base import Sampled
from vlm.models.processor import Inputs
from vlm.types import Sampling

VOCABULARY = 12
PLAIN = Sampling(50, 0.0, 1.0, repetition_penalty=1.0, no_repeat_ngram_size=0, forced_tokens=(), num_beams=1)
CPU = torch.device("cpu")

histories = st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=12), min_size=1, max_size=5)
seeds = st.integers(0, 2**31)


def logits_of(rows: int, seed: int, vocabulary: int = VOCABULARY) -> Tensor:
    return 3 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))


def started(history: Rows[int], sampling: Sampling = PLAIN, prompt: int = 1) -> Sequence:
    """A sequence that has read ``prompt`` ids of ``history`` and written the rest."""
    inputs = Inputs(None, tuple(history[:prompt]), (), "caption", "", "default", None, 0, prompt)
    output = OutputText(lambda ids: "", inputs)
    sequence = Sequence(inputs, sampling.over(PLAIN), output, generated=list(history[prompt:]))
    sequence.start_running()
    return sequence


def beam(row: int, history: Rows[int], sampling: Sampling = PLAIN, prompt: int = 1) -> Beam:
    """The only one of such a sequence, in ``row``."""
    (only,) = started(history, sampling, prompt).beams
    only.row = row
    return only


def sample(logits: Tensor, beams: Rows[Beam]) -> Sampled:
    return Sampler(CPU).sample(logits.clone(), beams).sampled


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 6))
def test_the_tokens_that_would_repeat_an_ngram_are_found(ids: list[int], size: int) -> None:
    """Few tokens, so that n-grams overlap and repeat themselves."""
    ngrams = {tuple(ids[start : start + size]) for start in range(len(ids) - size + 1)}
    would = {token for token in range(4) if len(ids) >= size - 1 and (*ids[len(ids) - size + 1 :], token) in ngrams}
    assert {*repeating(ids, size)} == would


def penalised(beams: Rows[Beam], logits: Tensor) -> Tensor:
    """The logits after all penalties and bans."""
    sampler: Any = Sampler(CPU)
    changed = logits.clone()
    sampler._penalise(changed, beams, _BatchSettings.of(beams))
    return changed


@given(histories, seeds, st.integers(1, 4))
def test_ngrams_are_banned_as_transformers_does(rows: list[list[int]], seed: int, size: int) -> None:
    logits = logits_of(len(rows), seed)
    ours = penalised([beam(row, ids, Sampling(no_repeat_ngram_size=size)) for row, ids in enumerate(rows)], logits)
    for index, ids in enumerate(rows):
        theirs = NoRepeatNGramLogitsProcessor(size)(torch.tensor([ids]), logits[index : index + 1].clone())
        assert torch.equal(ours[index], theirs[0])


@given(histories, seeds, st.lists(st.floats(0.1, 5), min_size=5, max_size=5))
def test_repeats_are_penalised_as_transformers_does(rows: list[list[int]], seed: int, penalties: list[float]) -> None:
    logits = logits_of(len(rows), seed)
    samplings = [Sampling(repetition_penalty=one) for one in penalties[: len(rows)]]
    ours = penalised([beam(row, *one) for row, one in enumerate(zip(rows, samplings, strict=True))], logits)
    for index, ids in enumerate(rows):
        processor = RepetitionPenaltyLogitsProcessor(penalty=penalties[index])
        theirs = processor(torch.tensor([ids]), logits[index : index + 1].clone())
        torch.testing.assert_close(ours[index], theirs[0])


def test_ids_beyond_the_vocabulary_change_nothing() -> None:
    """A model notes with them what it generates besides tokens."""
    ids, logits = [VOCABULARY, VOCABULARY + 3, VOCABULARY], logits_of(1, 4)
    how = Sampling(no_repeat_ngram_size=1, repetition_penalty=2.0, presence_penalty=1.0)
    assert torch.equal(penalised([beam(0, ids, how)], logits), logits)


@given(seeds, st.floats(0.05, 1))
def test_the_nucleus_is_that_of_transformers(seed: int, top_p: float) -> None:
    """Every token that any number draws, and no other: the grid is finer than the least likely one."""
    logits = 2 * torch.tanh(logits_of(1, seed, vocabulary=6) / 2)
    grid = torch.linspace(0, 1, 2000)
    ours = sample_nucleus(logits.expand(len(grid), -1), torch.full((len(grid),), top_p), grid)
    kept = TopPLogitsWarper(top_p=top_p)(torch.zeros(1, 1, dtype=torch.long), logits.clone())[0]
    assert set(ours.tolist()) == set(torch.isfinite(kept).nonzero()[:, 0].tolist())


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_frequencies_are_the_probabilities(top_p: float) -> None:
    """Chi-square of 20,000 draws from 8 tokens; 24.3 is its 99.9 % point at 7 degrees of freedom."""
    logits, count = logits_of(1, 5, vocabulary=8) / 3, 20_000
    kept = TopPLogitsWarper(top_p=top_p)(torch.zeros(1, 1, dtype=torch.long), logits.clone())
    expected = count * torch.softmax(kept[0], dim=-1)
    numbers = random.Random(1)
    uniforms = torch.tensor([numbers.random() for _ in range(count)])
    found = sample_nucleus(logits.expand(count, -1), torch.full((count,), top_p), uniforms).bincount(minlength=8)
    possible = expected > 0
    assert not found[~possible].any()
    assert ((found - expected)[possible] ** 2 / expected[possible]).sum() < 24.3


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("worst", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_nan_still_sample_an_existing_token(worst: float, uniform: float) -> None:
    """An index out of range would take down a GPU, and every other request with it."""
    found = sample_nucleus(torch.full((1, VOCABULARY), worst), torch.tensor([0.9]), torch.tensor([uniform]))
    assert 0 <= int(found) < VOCABULARY


@pytest.mark.parametrize("temperature", [1e-46, 1e-39, 1e-12])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    logits = logits_of(1, 3)
    sampled = sample(logits, [beam(0, [1], Sampling(temperature=temperature, seed=1))])
    assert int(sampled.tokens) == int(logits.argmax())


def some_sampling(rng: random.Random) -> Sampling:
    return Sampling(
        temperature=rng.choice([0.0, 0.7, 1.5]), top_p=rng.choice([0.3, 0.9, 1.0]), seed=rng.randrange(100),
        repetition_penalty=rng.choice([1.0, 0.5, 2.0]), no_repeat_ngram_size=rng.choice([0, 1, 2, 3]),
        forced_tokens=rng.choice([(), (7,), (1, 2, 3)]), forced_last_token=rng.choice([None, 5]),
        max_tokens=rng.choice([13, 50]), logprobs=rng.choice([True, False]),
    )  # fmt: skip


@given(histories, seeds)
def test_a_row_does_not_depend_on_its_neighbours(rows: list[list[int]], seed: int) -> None:
    logits, rng = logits_of(len(rows), seed), random.Random(seed)
    samplings = [some_sampling(rng) for _ in rows]
    together = sample(logits, [beam(i, ids, how) for i, (ids, how) in enumerate(zip(rows, samplings, strict=True))])
    for index, (ids, how) in enumerate(zip(rows, samplings, strict=True)):
        alone = sample(logits[index : index + 1], [beam(0, ids, how)])
        assert int(alone.tokens) == int(together.tokens[index])
        if how.logprobs:
            assert alone.logprobs is not None
            assert together.logprobs is not None
            torch.testing.assert_close(alone.logprobs[0], together.logprobs[index])


@pytest.mark.parametrize(("written", "token"), [(0, 4), (1, 6), (2, None), (3, 9)])
def test_forced_tokens_win(written: int, token: int | None) -> None:
    """The first two are forced, and the last of four; the third is the likeliest that is not banned."""
    how = Sampling(4, forced_tokens=(4, 6), forced_last_token=9, temperature=1.0, no_repeat_ngram_size=1, seed=2)
    logits = torch.arange(float(VOCABULARY))[None] * 100
    sampled = sample(logits, [beam(0, [4, 6, 9, 11][: 1 + written], how)])
    assert int(sampled.tokens) == (VOCABULARY - 1 if token is None else token)


def test_token_zero_can_be_forced() -> None:
    logits = torch.arange(float(VOCABULARY))[None]
    assert int(sample(logits, [beam(0, [3], Sampling(forced_tokens=(0,)))]).tokens) == 0


def test_log_probabilities_are_those_of_the_raw_logits() -> None:
    how = Sampling(temperature=0.5, top_p=0.5, repetition_penalty=3.0, no_repeat_ngram_size=1, seed=4, logprobs=True)
    logits = logits_of(2, 9)
    sampled = sample(logits, [beam(0, [1, 2, 3], how), beam(1, [5], Sampling(forced_tokens=(8,)))])
    expected = torch.log_softmax(logits, dim=-1).gather(1, sampled.tokens[:, None])[:, 0]
    assert sampled.logprobs is not None
    torch.testing.assert_close(sampled.logprobs, expected)


def test_log_probabilities_that_no_row_wants_are_not_computed() -> None:
    assert sample(logits_of(1, 1), [beam(0, [1])]).logprobs is None


def test_a_search_beside_others_leaves_their_bans_alone() -> None:
    """Row 1 may not choose the likeliest token, which it has written; the search in rows 2 and 3 does not change that,
    nor the search's choice with other rows before and behind it."""
    best, second = VOCABULARY - 1, VOCABULARY - 2
    searching = started([5], Sampling(num_beams=2, length_penalty=1.0)).beams
    banned = [beam(1, [best], Sampling(no_repeat_ngram_size=1)), beam(4, [best], Sampling(no_repeat_ngram_size=1))]
    likely = torch.arange(float(VOCABULARY))[None]
    logits = torch.cat([likely, likely, logits_of(2, 1), likely])
    found = Sampler(CPU).sample(logits.clone(), [beam(0, [3]), banned[0], *searching, banned[1]])
    alone = Sampler(CPU).sample(logits[2:4].clone(), searching)
    assert found.sampled.tokens.tolist() == [best, second, *alone.sampled.tokens.tolist(), second]
    assert found.ranked[0].first_rows == (2,)


@given(seeds, st.permutations([1, 1, 2, 3, 3, 2]))
def test_searches_of_several_widths_are_ranked_as_alone(seed: int, widths: list[int]) -> None:
    """Also where the searches with the same number of beams are not side by side, and some rows do not search."""
    sequences = [started([5], Sampling(num_beams=width, length_penalty=1.0, logprobs=True)) for width in widths]
    logits = logits_of(sum(widths), seed)
    found = Sampler(CPU).sample(logits.clone(), [one for sequence in sequences for one in sequence.beams])
    ranked = {
        row: [part if part is None else part[index] for part in group.parts]
        for group in found.ranked
        for index, row in enumerate(group.first_rows)
    }
    row = 0
    for sequence, width in zip(sequences, widths, strict=True):
        alone = Sampler(CPU).sample(logits[row : row + width].clone(), sequence.beams)
        torch.testing.assert_close(found.sampled.tokens[row : row + width], alone.sampled.tokens)
        for group in alone.ranked:
            torch.testing.assert_close(ranked.pop(row), [part if part is None else part[0] for part in group.parts])
        row += width
    assert not ranked


@pytest.mark.parametrize("worst", [float("nan"), float("inf"), float("-inf")])
def test_the_largest_logit_tells_whether_a_row_is_finite(worst: float) -> None:
    logits = torch.stack([torch.zeros(VOCABULARY), torch.full((VOCABULARY,), worst)])
    for how in (Sampling(), Sampling(no_repeat_ngram_size=1)):
        found = Sampler(CPU).sample(logits.clone(), [beam(0, [1], how), beam(1, [1], how)])
        assert found.largest.isfinite().tolist() == [True, False]


def test_without_a_seed_two_requests_differ() -> None:
    """Otherwise every client would get the same 'random' answer."""
    how = Sampling(temperature=1.0)
    assert beam(0, [1], how).sequence.generator.random() != beam(0, [1], how).sequence.generator.random()


def test_seed_0_is_a_seed() -> None:
    def numbers(seed: int | None) -> list[float]:
        generator = beam(0, [1], Sampling(seed=seed)).sequence.generator
        return [generator.random() for _ in range(3)]

    assert numbers(0) == numbers(0)
    assert numbers(0) != numbers(1)
    assert numbers(7) != numbers(-7)
    assert numbers(None) != numbers(None), "without a seed no two answers are alike"
