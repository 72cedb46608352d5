"""Biases, penalties, top-k and min-p of mixed batches, against plain Python that works on one sequence at a time."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from collections.abc import Sequence as Rows
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from tests.vlm.engine.test_sampler import VOCABULARY, beam, logits_of, penalised, sample, started
from vlm.engine.logits import keep_likeliest, sample_nucleus
from vlm.engine.sampler import Sampler
from vlm.engine.sequence import Beam
from vlm.types import Sampling

histories = st.lists(st.lists(st.integers(0, VOCABULARY + 2), min_size=1, max_size=12), min_size=1, max_size=6)
seeds = st.integers(0, 2**31)


# --- the oracle ------------------------------------------------------------------------------------


def processed(logits: Rows[float], prompt: Rows[int], answer: Rows[int], how: Sampling) -> list[float]:
    """The logits from which the next token is chosen, before temperature; ids beyond the vocabulary are not words."""
    scores = list(logits)
    for token, bias in how.logit_bias:
        scores[token] += bias
    for token in {*prompt, *answer} & {*range(len(scores))}:
        penalty = how.repetition_penalty or 1.0
        scores[token] = scores[token] / penalty if scores[token] > 0 else scores[token] * penalty
    for token in range(len(scores)):
        count = list(answer).count(token)
        scores[token] -= how.frequency_penalty * count + how.presence_penalty * (count > 0)
    for token in repeating([*prompt, *answer], how.no_repeat_ngram_size or 0):
        if token < len(scores):
            scores[token] = -math.inf
    return scores


def repeating(ids: list[int], size: int) -> set[int]:
    """The tokens that would complete an n-gram which is in ``ids`` already."""
    if size == 0 or len(ids) < size:
        return set()
    beginning = ids[len(ids) - size + 1 :]
    return {ids[at + size - 1] for at in range(len(ids) - size + 1) if ids[at : at + size - 1] == beginning}


def probabilities(scores: Rows[float], how: Sampling) -> list[tuple[int, float]]:
    """The tokens that may be sampled and their probabilities, the likeliest first."""
    scaled = [score / (how.temperature or 1.0) for score in scores]
    order = sorted(range(len(scaled)), key=lambda token: -scaled[token])
    if how.top_k > 0:
        least = scaled[order[min(how.top_k, len(order)) - 1]]
        order = [token for token in order if scaled[token] >= least]
    shares = softmax([scaled[token] for token in order])
    kept = [share for index, share in enumerate(shares) if index == 0 or sum(shares[:index]) < (how.top_p or 1.0)]
    kept = [share for share in kept if share >= how.min_p * kept[0]]
    return [(token, share / sum(kept)) for token, share in zip(order, kept, strict=False)]


def softmax(scores: Rows[float]) -> list[float]:
    weights = [math.exp(score - max(scores)) for score in scores]
    return [weight / sum(weights) for weight in weights]


def assert_chosen(token: int, logits: Rows[float], ids: Rows[int], prompt: int, how: Sampling) -> None:
    """Greedy: the best token. Sampled: the one at which the seed's first number falls, but for rounding."""
    scores = processed(logits, ids[:prompt], ids[prompt:], how)
    if not how.temperature:
        assert scores[token] == pytest.approx(max(scores), abs=1e-5)
        return
    number, before = random.Random(str(how.seed)).random(), 0.0
    for candidate, share in probabilities(scores, how):
        if candidate == token:
            assert before - 1e-5 <= number <= before + share + 1e-5
            return
        before += share
    raise AssertionError(f"token {token} may not be sampled")


# --- against the oracle ----------------------------------------------------------------------------


def some_sampling(rng: random.Random) -> Sampling:
    """Settings of which each is off in about half of the cases."""
    biased = rng.sample(range(VOCABULARY), rng.choice([0, 0, 1, 3]))
    return Sampling(
        temperature=rng.choice([0.0, 0.0, 0.7, 1.5]), top_p=rng.choice([1.0, 1.0, 0.3, 0.9]), seed=rng.randrange(100),
        repetition_penalty=rng.choice([1.0, 1.0, 0.5, 2.0]), no_repeat_ngram_size=rng.choice([0, 0, 1, 2, 3]),
        frequency_penalty=rng.choice([0.0, 0.0, -2.0, 0.4, 2.0]), presence_penalty=rng.choice([0.0, 0.0, -1.5, 1.3]),
        logit_bias=tuple((token, rng.choice([-100.0, -1.5, 0.25, 3.0, 100.0])) for token in biased),
        top_k=rng.choice([0, -1, 1, 3, 1000]), min_p=rng.choice([0.0, 0.0, 0.05, 0.5, 1.0]),
        logprobs=rng.choice([True, False]),
    )  # fmt: skip


@given(histories, seeds)
def test_a_mixed_batch_equals_the_oracle(rows: list[list[int]], seed: int) -> None:
    logits, rng = logits_of(len(rows), seed), random.Random(seed)
    samplings = [some_sampling(rng) for _ in rows]
    prompts = [rng.randint(1, len(ids)) for ids in rows]
    settings = list(zip(rows, samplings, prompts, strict=True))
    together = sample(logits, [beam(at, ids, how, prompt) for at, (ids, how, prompt) in enumerate(settings)])
    for index, (ids, how, prompt) in enumerate(settings):
        assert_chosen(int(together.tokens[index]), logits[index].tolist(), ids, prompt, how)
        alone = sample(logits[index : index + 1], [beam(0, ids, how, prompt)])
        assert int(alone.tokens) == int(together.tokens[index]), "a row does not depend on its neighbours"


@given(histories, seeds)
def test_penalties_count_the_answer_and_not_the_prompt(rows: list[list[int]], seed: int) -> None:
    logits, rng = logits_of(len(rows), seed), random.Random(seed)
    starts = [rng.randint(1, len(ids)) for ids in rows]
    samplings = [Sampling(frequency_penalty=rng.uniform(-2, 2), presence_penalty=rng.uniform(-2, 2)) for _ in rows]
    settings = list(zip(rows, samplings, starts, strict=True))
    ours = penalised([beam(at, ids, how, start) for at, (ids, how, start) in enumerate(settings)], logits)
    for index, (ids, how, start) in enumerate(settings):
        expected = processed(logits[index].tolist(), ids[:start], ids[start:], how)
        torch.testing.assert_close(ours[index], torch.tensor(expected))


@given(seeds, st.integers(1, 8), st.floats(0.05, 1), st.floats(0, 1))
def test_what_may_be_sampled_is_as_in_transformers(seed: int, top_k: int, top_p: float, min_p: float) -> None:
    """Every token that any number draws, and no other: the grid is finer than the least likely one."""
    logits = 2 * torch.tanh(logits_of(1, seed, vocabulary=6) / 2)
    grid, theirs, none = torch.linspace(0, 1, 2000), logits.clone(), torch.zeros(1, 1, dtype=torch.long)
    for warper in (TopKLogitsWarper(top_k), TopPLogitsWarper(top_p), MinPLogitsWarper(min_p)):
        theirs = warper(none, theirs)
    ours = logits.clone()
    keep_likeliest(ours, torch.tensor([min(top_k, 6)]), min(top_k, 6))
    rows = len(grid)
    drawn = sample_nucleus(ours.expand(rows, -1), torch.full((rows,), top_p), grid, torch.full((rows,), min_p))
    assert set(drawn.tolist()) == set(torch.isfinite(theirs[0]).nonzero()[:, 0].tolist())


def test_tokens_as_likely_as_the_last_one_stay() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0, 0.0]])
    keep_likeliest(logits, torch.tensor([2]), 2)
    assert torch.isfinite(logits).tolist() == [[False, True, True, True, False]]


def test_forced_tokens_win_over_biases_and_penalties() -> None:
    how = Sampling(forced_tokens=(4, 4, 4), logit_bias=((4, -100.0), (7, 100.0)), frequency_penalty=2.0)
    assert int(sample(logits_of(1, 1), [beam(0, [3, 4, 4], how)]).tokens) == 4
    assert int(sample(logits_of(1, 1), [beam(0, [3, 4, 4, 4], how)]).tokens) == 7


def test_log_probabilities_are_those_before_biases_and_penalties() -> None:
    how = Sampling(logit_bias=((4, 100.0),), presence_penalty=2.0, top_k=1, min_p=0.5, logprobs=True)
    logits = logits_of(1, 9)
    found = sample(logits, [beam(0, [1, 2, 3], how)])
    assert int(found.tokens) == 4
    assert found.logprobs is not None
    torch.testing.assert_close(found.logprobs[0], torch.log_softmax(logits, -1)[0, 4])


def test_beams_are_ranked_by_penalised_log_probabilities() -> None:
    """As transformers does: the processors see each beam's log-probabilities, and its own answer."""
    how = Sampling(
        num_beams=2, length_penalty=1.0, logit_bias=((2, 1.5), (5, -3.0)), frequency_penalty=0.7, presence_penalty=-0.4
    )
    beams = started([3], how).beams
    for row, (one, answer) in enumerate(zip(beams, ([4, 4], [2, 5]), strict=True)):
        one.row = row
        one.generated.extend(answer)
    search = beams[0].sequence.search
    assert search is not None
    search.scores = [-1.0, -1.2]
    logits = logits_of(2, 11)
    (ranked,) = Sampler(torch.device("cpu")).sample(logits.clone(), beams).ranked
    expected = sorted(
        (
            (score + own, parent, token)
            for parent, (one, own) in enumerate(zip(beams, search.scores, strict=True))
            for token, score in enumerate(
                processed(torch.log_softmax(logits[parent], -1).tolist(), [3], one.generated, how)
            )
        ),
        reverse=True,
    )[:4]
    found = zip(ranked.parents[0].tolist(), ranked.tokens[0].tolist(), strict=True)
    assert list(found) == [(parent, token) for _, parent, token in expected]
    assert ranked.scores[0].tolist() == pytest.approx([score for score, *_ in expected], abs=1e-5)


# --- what is off costs nothing ----------------------------------------------------------------------


class Calls(TorchFunctionMode):
    """Notes the name of every call into torch."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(getattr(func, "__name__", str(func)))
        return func(*args, **(kwargs or {}))


@contextmanager
def calls() -> Iterator[list[str]]:
    with Calls() as mode:
        yield mode.names


def calls_for(sampling: Sampling) -> list[str]:
    beams: list[Beam] = [beam(row, [1, 2, 3], sampling) for row in range(3)]
    sampler, logits = Sampler(torch.device("cpu")), logits_of(3, 1)
    with calls() as names:
        sampler.sample(logits, beams)
    return names


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_setting_that_is_off_does_no_work(temperature: float) -> None:
    """Not one more call into torch; a batch in which one row wants it does make more."""
    plain = calls_for(Sampling(temperature=temperature, seed=1))
    off = Sampling(temperature=temperature, seed=1, frequency_penalty=0, presence_penalty=0, top_k=0, min_p=0)
    assert calls_for(off) == plain
    assert not {"index_put_", "topk"} & {*plain}
    assert len(calls_for(Sampling(temperature=temperature, seed=1, presence_penalty=0.1))) > len(plain)
    assert "index_put_" in calls_for(Sampling(temperature=temperature, seed=1, logit_bias=((1, 0.5),)))
    assert ("topk" in calls_for(Sampling(temperature=temperature, seed=1, top_k=2))) == (temperature > 0)


def test_a_greedy_batch_makes_one_call() -> None:
    """The likeliest token and its logit: nothing that is off has been added to them."""
    assert calls_for(Sampling()) == ["max"]
