"""Biases and penalties in whole answers: as transformers' ``generate`` gives them, and the same in any batch."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from tests.images import hand_drawn, scene, scenes
from tests.oracle import MINIATURES, ask, ask_all, miniature_oracle, without_scores
from tests.vlm.engine.world import BLIP, FLORENCE, KOSMOS, comparable, crowd
from vlm.types import Request, Sampling, Task

PROMPTS = {BLIP: "", FLORENCE: "<CAPTION>", KOSMOS: "<grounding>An image of"}
MOONDREAM = "moondream-2"


class CountPenalties(LogitsProcessor):  # type: ignore[misc]  # transformers has no types
    """OpenAI's penalties as a processor of transformers, token by token; the answer follows ``prompt`` ids."""

    def __init__(self, frequency: float, presence: float, prompt: int) -> None:
        self.frequency, self.presence, self.prompt = frequency, presence, prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.clone()
        for row, ids in zip(scores, input_ids[:, self.prompt :].tolist(), strict=True):
            for token in set(ids):
                row[token] -= self.frequency * ids.count(token) + self.presence
        return scores


def prompt_length(name: str, image: bytes) -> int:
    """Number of ids that ``generate`` has before the answer, which each model counts in its own way."""
    oracle, lengths = miniature_oracle(name), []

    class Listening(LogitsProcessor):  # type: ignore[misc]  # transformers has no types
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            lengths.append(input_ids.shape[1])
            return scores

    oracle.answer(image, PROMPTS[name], 1, logits_processor=LogitsProcessorList([Listening()]))
    return lengths[0]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", PROMPTS)
def test_answers_equal_those_of_transformers(name: str, beams: int) -> None:
    images = scenes(5, first=70)
    plain = ask_all(MINIATURES / name, [ask(one, PROMPTS[name], max_tokens=30) for one in images])
    used = sorted({token for answer in plain for token in answer.token_ids[1:-1]})
    bias = dict(zip(used, [-100.0, 1.5, -2.0, 0.5] * 9, strict=False))
    how: dict[str, Any] = {"max_tokens": 30, "num_beams": beams, "early_stopping": beams > 1}
    ours = ask_all(
        MINIATURES / name,
        [
            ask(one, PROMPTS[name], **how, logit_bias=tuple(bias.items()), frequency_penalty=0.9, presence_penalty=-0.3)
            for one in images
        ],
    )
    penalties = LogitsProcessorList([CountPenalties(0.9, -0.3, prompt_length(name, images[0]))])
    for image, answer in zip(images, ours, strict=True):
        theirs = miniature_oracle(name).answer(
            image, PROMPTS[name], **how,
            sequence_bias={(token,): value for token, value in bias.items()}, logits_processor=penalties,
        )  # fmt: skip
        assert answer.token_ids == theirs.token_ids
    assert [one.token_ids for one in ours] != [one.token_ids for one in plain], "else nothing is tested"


def varied(request: Request, rng: random.Random) -> Request:
    sampling = replace(
        request.sampling,
        frequency_penalty=rng.choice([0.0, 0.5, -1.0]), presence_penalty=rng.choice([0.0, 1.0]),
        logit_bias=rng.choice([(), ((rng.randrange(70), 4.0), (rng.randrange(70, 140), -100.0))]),
        top_k=rng.choice([0, 2, 40]), min_p=rng.choice([0.0, 0.1]),
    )  # fmt: skip
    return replace(request, sampling=sampling)


@pytest.mark.parametrize("name", [BLIP, FLORENCE])
def test_an_answer_does_not_depend_on_the_batch(name: str) -> None:
    rng = random.Random(3)
    requests = [varied(one, rng) for one in crowd(name, 12, seed=5)]
    together = ask_all(MINIATURES / name, requests)
    for request, answer in zip(requests, together, strict=True):
        [alone] = ask_all(MINIATURES / name, [request])
        assert comparable(alone) == comparable(answer)


@pytest.mark.parametrize("task", [Task("detect", labels=("circle",)), Task("point", labels=("square",))])
def test_coordinates_are_not_words(task: Task) -> None:
    """Moondream's objects stay as they are whatever is penalised or banned: they are computed, not chosen as tokens."""
    plain = Request(hand_drawn(), task=task)
    banned = tuple((token, -100.0) for token in range(300))
    forbidding = Sampling(frequency_penalty=2, presence_penalty=2, logit_bias=banned)
    first, second = ask_all(MINIATURES / MOONDREAM, [plain, replace(plain, sampling=forbidding)])
    assert first.token_ids == second.token_ids
    assert without_scores(first.grounding) == without_scores(second.grounding)


def test_a_ban_applies_to_the_words_of_moondream() -> None:
    plain = Request(scene(3), task=Task("caption"))
    [first] = ask_all(MINIATURES / MOONDREAM, [plain])
    ban = Sampling(logit_bias=((first.token_ids[0], -100.0),))
    [second] = ask_all(MINIATURES / MOONDREAM, [replace(plain, sampling=ban)])
    assert first.token_ids[0] not in second.token_ids
