"""What clients ask of sampling, through OpenAI's client and a real engine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from router.app import create_app
from router.backends.base import LocalBackend
from router.config import RouterConfig
from tests.images import data_url, scene
from tests.listening import listening
from tests.router.world import image_part, user
from tests.vlm.engine.world import BLIP, assert_empty, miniature
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(miniature(BLIP), EngineConfig(max_batch=16, max_waiting=16, cache_bytes=2**26)) as one:
        yield one


@pytest.fixture(scope="module")
def sdk(engine: Engine) -> Iterator[OpenAI]:
    with (
        listening(create_app(LocalBackend({BLIP: engine}), RouterConfig())) as address,
        OpenAI(
            base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60, _strict_response_validation=True
        ) as client,
    ):
        yield client


@pytest.fixture
def client(sdk: OpenAI, engine: Engine) -> Iterator[OpenAI]:
    """Checks after each test that the engine holds nothing."""
    yield sdk
    assert_empty(engine)


def create(client: OpenAI, **fields: Any) -> Any:
    messages: Any = [user(image_part(data_url(scene(6))))]
    return client.chat.completions.create(model=BLIP, messages=messages, **fields)


@pytest.mark.parametrize("n", [1, 3])
def test_a_stream_has_the_same_choices_and_tokens_as_the_whole_answer(client: OpenAI, n: int) -> None:
    asked: Any = {"n": n, "logprobs": True, "top_logprobs": 3, "seed": 7, "temperature": 2.0, "max_tokens": 12}
    whole = create(client, **asked)
    chunks = [chunk.choices[0] for chunk in create(client, stream=True, **asked)]
    assert [one.index for one in chunks[:n]] == [*range(n)]
    assert len(whole.choices) == n
    for choice in whole.choices:
        mine = [one for one in chunks if one.index == choice.index]
        assert "".join(one.delta.content or "" for one in mine) == choice.message.content
        content = choice.logprobs.content
        streamed = [entry for one in mine if one.logprobs for entry in one.logprobs.content]
        assert [one.token for one in streamed] == [one.token for one in content]
        assert [one.logprob for one in streamed] == pytest.approx([one.logprob for one in content], abs=1e-4)
        assert all(len(one.top_logprobs) == 3 and bytes(one.bytes).decode() == one.token for one in content)
    assert whole.usage.completion_tokens == sum(len(one.logprobs.content) for one in whole.choices)


def test_a_biased_token_is_always_or_never_chosen(client: OpenAI) -> None:
    plain = create(client, logprobs=True, max_tokens=5).choices[0]
    first = plain.token_ids[0]
    banned = create(client, logprobs=True, max_tokens=5, logit_bias={str(first): -100}).choices[0]
    assert first not in banned.token_ids
    wanted = create(client, logprobs=True, max_tokens=5, logit_bias={str(first): 100}).choices[0]
    assert wanted.token_ids == [first] * 5


def test_a_penalty_ends_the_repetition_of_a_biased_token(client: OpenAI) -> None:
    first = create(client, logprobs=True, max_tokens=1).choices[0].token_ids[0]
    biased: Any = {"logit_bias": {str(first): 30}, "max_tokens": 40, "logprobs": True}
    assert create(client, **biased).choices[0].token_ids == [first] * 40
    varied = create(client, frequency_penalty=2, **biased).choices[0].token_ids
    assert 1 < varied.count(first) < len(varied)


def test_a_token_id_that_the_model_does_not_have_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="token id 99999; those of this model are from 0 to") as caught:
        create(client, logit_bias={"99999": 1})
    assert (caught.value.code, caught.value.param) == ("invalid_value", "logit_bias")


def test_choices_and_tasks_are_refused_together(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="cannot be combined with several tasks") as caught:
        create(client, n=2, extra_body={"tasks": ["caption"]})
    assert caught.value.param == "n"


def test_top_p_0_takes_the_most_likely_token(client: OpenAI) -> None:
    greedy = create(client, logprobs=True, temperature=0)
    for seed in range(3):
        nucleus = create(client, logprobs=True, temperature=2.0, top_p=0, seed=seed)
        assert nucleus.choices[0].token_ids == greedy.choices[0].token_ids
        assert nucleus.x_gigarouter["ignored"] == []


@pytest.mark.parametrize(
    ("asked", "unused"),
    [
        ({"top_p": 0.5}, ["top_p"]),
        ({"temperature": 0, "top_p": 0.5, "extra_body": {"top_k": 5, "min_p": 0.1}}, ["top_p", "top_k", "min_p"]),
        ({"temperature": 1, "top_p": 0.5, "extra_body": {"top_k": 5, "min_p": 0.1}}, []),
        ({"extra_body": {"num_beams": 2, "top_k": 5, "length_penalty": 2.0, "early_stopping": True}}, ["top_k"]),
        ({"extra_body": {"length_penalty": 2.0, "early_stopping": True}}, ["length_penalty", "early_stopping"]),
        ({"top_p": 1, "extra_body": {"top_k": -1, "min_p": 0, "length_penalty": 1.0, "early_stopping": False}}, []),
        ({"stream": True, "top_p": 0.5}, ["top_p"]),
    ],
)
def test_settings_without_effect_are_reported(client: OpenAI, asked: dict[str, Any], unused: list[str]) -> None:
    answer = create(client, max_tokens=3, **asked)
    last = [chunk for chunk in answer if chunk.choices][-1] if asked.get("stream") else answer
    assert last.x_gigarouter["ignored"] == unused


def test_a_client_that_leaves_a_stream_of_choices_frees_the_engine(client: OpenAI, engine: Engine) -> None:
    stream = create(client, n=4, stream=True, temperature=2.0)
    next(iter(stream))
    stream.close()
    end = time.monotonic() + 10
    while engine.stats().used_places:
        assert time.monotonic() < end
        time.sleep(0.01)
