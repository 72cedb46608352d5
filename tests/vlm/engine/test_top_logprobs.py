"""The likeliest tokens of each step, and what each token adds to the output as bytes."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.images import hand_drawn, scene, scenes
from tests.oracle import MINIATURES, ask, ask_all
from tests.vlm.engine.test_processors import calls_for
from tests.vlm.engine.test_sampler import CPU, beam, logits_of, started
from tests.vlm.engine.world import BLIP, FLORENCE, KOSMOS, crowd, miniature
from vlm.engine import runner
from vlm.engine.engine import Engine
from vlm.engine.read_back import read_back
from vlm.engine.sampler import Sampler
from vlm.models.processor import Processor
from vlm.types import Chunk, Completion, Request, Sampling, Task, TopLogprob

MOONDREAM = "moondream-2"
ALL = (BLIP, FLORENCE, KOSMOS, MOONDREAM)
PROMPTS = {BLIP: "a", FLORENCE: "<OD>", KOSMOS: "<grounding>An image of", MOONDREAM: "What color is it?"}


def joined(answer: Completion | Chunk) -> str:
    return b"".join(answer.token_bytes).decode("utf-8", "replace")


# --- bytes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@given(data=st.data())
def test_the_bytes_of_any_tokens_are_the_decoded_output(name: str, data: st.DataObject) -> None:
    """Special tokens, parts of characters, and ids that the tokenizer does not have, wherever they are."""
    processor: Processor = miniature(name).processor
    vocabulary = miniature(name).model.vocabulary
    ids = data.draw(st.lists(st.integers(0, vocabulary - 1), max_size=12))
    pieces = [processor.token_bytes(token, ids[:index]) for index, token in enumerate(ids)]
    assert b"".join(pieces).decode("utf-8", "replace") == processor.decode(ids, special=True)


def test_a_word_begins_the_output_after_an_id_without_text() -> None:
    """BLIP's vocabulary has more ids than its tokenizer."""
    processor: Processor = miniature(BLIP).processor
    unknown = miniature(BLIP).model.vocabulary - 1
    assert processor.token_bytes(unknown, []) == b""
    word = processor.token_bytes(10, [])
    assert processor.token_bytes(10, [unknown]) == word
    assert processor.token_bytes(10, [unknown, 10]) == b" " + word


@pytest.mark.parametrize("name", [FLORENCE, MOONDREAM])
def test_a_character_of_several_tokens_has_its_bytes_in_parts(name: str) -> None:
    processor: Any = miniature(name).processor
    text = "snow ☃ 😀 é"
    ids = processor.vocabulary.encode(text)
    pieces = [processor.token_bytes(token, ids[:index]) for index, token in enumerate(ids)]
    assert b"".join(pieces).strip() == text.encode()
    with pytest.raises(UnicodeDecodeError):
        [piece.decode() for piece in pieces]


@pytest.mark.parametrize("name", ALL)
def test_the_bytes_of_an_answer_are_its_raw_output(name: str) -> None:
    how = Sampling(max_tokens=25, logprobs=True)
    requests = [Request(image, PROMPTS[name], sampling=how) for image in scenes(4, first=20)]
    answers = ask_all(MINIATURES / name, requests)
    assert [joined(one) for one in answers] == [one.grounding.raw for one in answers]
    assert all(len(one.token_bytes) == len(one.token_ids) == len(one.logprobs) for one in answers)
    [silent] = ask_all(MINIATURES / name, [Request(scene(1), PROMPTS[name])])
    assert (silent.token_bytes, silent.top_logprobs) == ((), ())


# --- the likeliest tokens --------------------------------------------------------------------------


def test_a_row_gets_as_many_as_it_wants() -> None:
    """Against the sorted log-probabilities of each row; row 1 wants none, and row 3 more than there are."""
    wanted, logits = [2, 0, 5, 20], logits_of(4, 3)
    logits[0, 5] = -torch.inf
    biased = {"logit_bias": ((1, 9.0),), "frequency_penalty": 2.0}
    beams = [
        beam(row, [1, 1, 2], Sampling(logprobs=True, top_logprobs=count, **(biased if row == 2 else {})))  # type: ignore[arg-type]
        for row, count in enumerate(wanted)
    ]
    top = Sampler(CPU).sample(logits.clone(), beams).top
    assert top is not None
    found = top.by_row(top.tokens.tolist(), top.logprobs.tolist(), [True] * 4)
    for row, count in enumerate(wanted):
        raw = torch.log_softmax(logits[row], dim=-1).tolist()
        best = sorted(((logprob, token) for token, logprob in enumerate(raw) if logprob > -math.inf), reverse=True)
        assert [token for token, _ in found.get(row, ())] == [token for _, token in best[:count]]
        assert [logprob for _, logprob in found.get(row, ())] == pytest.approx([value for value, _ in best[:count]])


def test_a_token_that_is_ruled_out_is_not_reported() -> None:
    logits = torch.full((1, 4), -torch.inf)
    logits[0, 2] = 1.0
    one = beam(0, [1], Sampling(logprobs=True, top_logprobs=3))
    top = Sampler(CPU).sample(logits, [one]).top
    assert top is not None
    assert top.by_row(top.tokens.tolist(), top.logprobs.tolist(), [True]) == {0: ((2, 0.0),)}
    assert top.by_row(top.tokens.tolist(), top.logprobs.tolist(), [False]) == {}


def check_steps(answer: Completion, count: int) -> None:
    """Best first, as many as wanted; the chosen token has the same log-probability among them."""
    assert len(answer.top_logprobs) == len(answer.token_ids)
    for token, logprob, piece, step in zip(
        answer.token_ids, answer.logprobs, answer.token_bytes, answer.top_logprobs, strict=True
    ):
        assert len(step) == count
        assert [one.logprob for one in step] == sorted((one.logprob for one in step), reverse=True)
        assert len({one.token_id for one in step}) == count
        same = [one for one in step if one.token_id == token]
        assert all(one.token_bytes == piece for one in same)
        assert [one.logprob for one in same] == pytest.approx([logprob] * len(same))
        if not same:
            assert logprob <= step[-1].logprob


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", [BLIP, FLORENCE, KOSMOS])
def test_every_step_has_its_likeliest_tokens(name: str, beams: int) -> None:
    """In a batch with requests of other kinds; those of a beam are those of the beam that it came from."""
    mine = ask(scene(4), PROMPTS[name], max_tokens=25, top_logprobs=4, num_beams=beams)
    other = ask(scene(5), PROMPTS[name], max_tokens=25, top_logprobs=2)
    answer, second, *_ = ask_all(MINIATURES / name, [mine, other, *crowd(name, 6, seed=2)])
    check_steps(answer, 4)
    check_steps(second, 2)
    [alone] = ask_all(MINIATURES / name, [mine])
    assert [[one.token_id for one in step] for step in alone.top_logprobs] == [
        [one.token_id for one in step] for step in answer.top_logprobs
    ]
    [plain] = ask_all(MINIATURES / name, [ask(scene(4), PROMPTS[name], max_tokens=25, num_beams=beams)])
    assert plain.token_ids == answer.token_ids


def test_a_greedy_choice_is_the_likeliest() -> None:
    [answer] = ask_all(MINIATURES / BLIP, [ask(scene(4), max_tokens=25, top_logprobs=1)])
    assert [step[0].token_id for step in answer.top_logprobs] == list(answer.token_ids)
    assert answer.top_logprobs[0][0] == TopLogprob(answer.token_ids[0], answer.logprobs[0], answer.token_bytes[0])


def test_a_stream_carries_what_the_whole_answer_has() -> None:
    request = replace(ask(scene(2), max_tokens=25, top_logprobs=3), stream=True)

    async def streamed(engine: Engine) -> list[Chunk]:
        return [chunk async for chunk in engine.generate(request)]

    with Engine(miniature(BLIP)) as engine:
        chunks = asyncio.run(streamed(engine))
    completion = chunks[-1].completion
    assert completion is not None
    together = Chunk.joined(chunks)
    assert (together.token_bytes, together.top_logprobs) == (completion.token_bytes, completion.top_logprobs)


def test_coordinates_have_neither_bytes_nor_alternatives() -> None:
    """Moondream computes them; the end of the list is a token."""
    how = Sampling(logprobs=True, top_logprobs=2)
    [answer] = ask_all(
        MINIATURES / MOONDREAM, [Request(hand_drawn(), task=Task("point", labels=("circle",)), sampling=how)]
    )
    *coordinates, _ = answer.token_ids
    assert len(coordinates) == 2
    assert answer.token_bytes[:2] == (b"", b"")
    assert answer.top_logprobs[:2] == ((), ())
    assert [one.token_id for one in answer.top_logprobs[2]][:1] == [answer.token_ids[2]]


def test_several_tasks_report_their_tokens_one_after_another() -> None:
    how = Sampling(num_beams=1, logprobs=True, top_logprobs=2)
    tasks = (Task("caption"), Task("detect"))
    [answer] = ask_all(MINIATURES / FLORENCE, [Request(hand_drawn(), tasks=tasks, sampling=how)])
    first, second = answer.parts
    assert answer.token_bytes == first.token_bytes + second.token_bytes
    assert answer.top_logprobs == first.top_logprobs + second.top_logprobs
    assert joined(answer) == first.grounding.raw + second.grounding.raw


def test_a_step_still_reads_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The likeliest tokens come in the same transfer as the rest; what is not wanted is not in it."""
    transfers: list[int] = []

    def counted(parts: Any) -> Any:
        transfers.append(sum(part is not None for part in parts))
        return read_back(parts)

    monkeypatch.setattr(runner, "read_back", counted)
    counts = []
    for wanted in (0, 3):
        transfers.clear()
        ask_all(MINIATURES / BLIP, [ask(scene(2), max_tokens=5, top_logprobs=wanted)])
        counts.append(list(transfers))
    assert counts == [[3] * 5, [6] * 5]


def test_what_nobody_wants_is_not_computed() -> None:
    assert calls_for(Sampling(logprobs=True, top_logprobs=0)) == calls_for(Sampling(logprobs=True))
    assert "topk" not in calls_for(Sampling(logprobs=True))
    assert "topk" in calls_for(Sampling(logprobs=True, top_logprobs=1))


def test_a_preempted_answer_keeps_what_it_had() -> None:
    """What a beam reports is in its sequence, which outlives the beam."""
    one = started([1, 2], Sampling(logprobs=True, top_logprobs=1))
    one.likeliest.append(((2, -0.5),))
    one.stop_running()
    one.start_running()
    assert one.likeliest == [((2, -0.5),)]
