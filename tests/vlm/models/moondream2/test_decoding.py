"""Steps of all stages side by side: each row as if it were alone, and as if nothing had been interrupted."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.images import scene
from tests.vlm.models.moondream2.driver import Alone, answer, features_of, greedy, load, prefilled
from vlm.loading import synthesize
from vlm.models.base import Sampled
from vlm.models.moondream2.model import FAMILY, Moondream2
from vlm.models.moondream2.processor import Moondream2Processor
from vlm.models.moondream2.stages import Stage, stage
from vlm.models.processor import Inputs
from vlm.types import Box, Point, Request, Sampling, Task

TASKS = (
    Task("caption"),
    Task("query", text="dog"),
    Task("query", text="dog", reasoning=True),
    Task("query", text="dog", references=(Point(0.1, 0.9), Box(0.1, 0.2, 0.3, 0.4))),
    Task("detect", labels=("dog",)),
    Task("point", labels=("dog",)),
    Task("ground", text="dog", max_objects=2),
)
ANSWER, COORDINATE, SIZE, EOS = 3, 5, 6, 0
MOST = 20


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Moondream2, Moondream2Processor]:
    folder = tmp_path_factory.mktemp("moondream2")
    synthesize(FAMILY, folder, FAMILY.sizes["tiny"], 3)
    return load(folder)


def asked(both: tuple[Moondream2, Moondream2Processor]) -> list[Inputs]:
    how = Sampling(max_tokens=MOST)
    return [both[1].prepare(Request(scene(number), task=task, sampling=how)) for number, task in enumerate(TASKS)]


@torch.inference_mode()
def test_rows_of_all_stages_are_decoded_as_if_alone(both: tuple[Moondream2, Moondream2Processor]) -> None:
    model = both[0]
    rows = [answer(model, inputs, most, features_of(model, inputs)) for inputs in asked(both) for most in range(8)]
    hidden = torch.randn(len(rows), model.text.spec.width, generator=torch.Generator().manual_seed(1))
    together = model.decode(hidden, rows, greedy)
    assert together.logprobs is not None
    stages = {stage(row.inputs, row.generated, ANSWER) for row in rows}
    assert stages >= set(Stage) - {Stage.END_REASONING}
    for index, row in enumerate(rows):
        alone = model.decode(hidden[index : index + 1], [row], greedy)
        assert alone.logprobs is not None
        assert int(alone.tokens) == int(together.tokens[index])
        torch.testing.assert_close(alone.logprobs[0], together.logprobs[index], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alone.embeddings[0], together.embeddings[index])


@torch.inference_mode()
def test_what_was_written_can_be_read_again(both: tuple[Moondream2, Moondream2Processor]) -> None:
    """As for a sequence that was preempted: the ids are all that it needs, locations included."""
    model, locations = both[0], 0
    for inputs in asked(both):
        features = features_of(model, inputs)
        whole = answer(model, inputs, MOST, features)
        for cut in range(len(whole.generated) + 1):
            rest = answer(model, inputs, MOST, features, whole.generated[:cut])
            assert rest.generated[: len(whole.generated)] == whole.generated
        locations += sum(token >= model.vocabulary for token in whole.generated)
    assert locations > 10


@torch.inference_mode()
def test_prompts_side_by_side_are_embedded_as_if_alone(both: tuple[Moondream2, Moondream2Processor]) -> None:
    model = both[0]
    inputs = asked(both)
    generated = [answer(model, one, count, features_of(model, one)).generated for count, one in enumerate(inputs)]
    together = model.embed(inputs, [], generated)
    for row, (one, ids) in enumerate(zip(inputs, generated, strict=True)):
        alone = model.embed([one], [], [ids])
        assert together.lengths[row] == alone.lengths[0] == len(one.prompt_ids) + len(ids)
        torch.testing.assert_close(together.embeddings[row, : alone.lengths[0]], alone.embeddings[0])


def state(model: Moondream2, inputs: Inputs) -> Tensor:
    return prefilled(model, inputs, None)[1]


def choosing(model: Moondream2, chosen: dict[int, float]) -> None:
    """Make the head choose these, whatever the hidden state."""
    with torch.no_grad():
        model.text.head.weight.zero_()
        model.text.head.bias.fill_(-20.0)
        for token, logit in chosen.items():
            model.text.head.bias[token] = logit


@pytest.fixture
def biased(both: tuple[Moondream2, Moondream2Processor]) -> Moondream2:
    return copy.deepcopy(both[0])


def token_of(model: Moondream2, inputs: Inputs, written: list[int]) -> int:
    with torch.inference_mode():
        return int(model.decode(state(model, inputs), [Alone(inputs, written)], greedy).tokens)


def test_an_answer_has_no_answer_token_but_may_begin_with_it(
    both: tuple[Moondream2, Moondream2Processor], biased: Moondream2
) -> None:
    choosing(biased, {ANSWER: 9.0, 40: 1.0})
    question = asked(both)[1]
    assert token_of(biased, question, []) == ANSWER
    assert token_of(biased, question, [ANSWER]) == 40
    reasoning = asked(both)[2]
    assert token_of(biased, reasoning, []) == ANSWER
    assert token_of(biased, reasoning, [40, ANSWER]) == ANSWER
    assert token_of(biased, reasoning, [40, ANSWER, ANSWER]) == 40


def test_reasoning_has_no_end_of_text_and_no_size(
    both: tuple[Moondream2, Moondream2Processor], biased: Moondream2
) -> None:
    choosing(biased, {EOS: 9.0, SIZE: 5.0, 40: 1.0})
    reasoning = asked(both)[2]
    assert token_of(biased, reasoning, []) == SIZE
    assert token_of(biased, reasoning, [40]) == 40
    assert token_of(biased, reasoning, [40, ANSWER, 40]) == EOS


def test_a_coordinate_in_reasoning_has_a_value(
    both: tuple[Moondream2, Moondream2Processor], biased: Moondream2
) -> None:
    choosing(biased, {COORDINATE: 9.0})
    reasoning, question = asked(both)[2], asked(both)[1]
    for written in ([], [40]):
        assert biased.locations.coordinate(token_of(biased, reasoning, written)) is not None
    assert token_of(biased, question, [40]) == COORDINATE


@pytest.mark.parametrize("written", [[], [40]])
def test_the_log_probability_of_a_coordinate_in_reasoning_is_that_of_token_and_bin(
    both: tuple[Moondream2, Moondream2Processor], biased: Moondream2, written: list[int]
) -> None:
    """Of the tokens that may come there, and of the bins: both were chosen."""
    choosing(biased, {COORDINATE: 2.0, 40: 1.0, EOS: 1.5, SIZE: 0.5})
    thinking = asked(both)[2]
    with torch.inference_mode():
        hidden = prefilled(biased, thinking, None, written)[1]
        step = biased.decode(hidden, [Alone(thinking, written)], greedy)
        bins = torch.log_softmax(biased.region.coordinate_logits(hidden)[0].float(), dim=-1)
    others = [40, SIZE] if not written else [40]  # no end of text in reasoning, and no size after its first token
    weights = {COORDINATE: 2.0, 40: 1.0, SIZE: 0.5}
    total = sum(math.exp(weights[token]) for token in (COORDINATE, *others))
    total += (biased.vocabulary - len(others) - 2 - bool(written)) * math.exp(-20)
    assert step.logprobs is not None
    assert float(step.logprobs) == pytest.approx(2.0 - math.log(total) + float(bins.max()), abs=1e-4)
    assert int(step.tokens) == biased.vocabulary + int(bins.argmax())


def test_reasoning_ends_at_its_limit(both: tuple[Moondream2, Moondream2Processor]) -> None:
    reasoning = replace(asked(both)[2], max_reasoning_tokens=2)
    assert token_of(both[0], reasoning, [40, 41]) == ANSWER
    assert stage(reasoning, [40, 41, ANSWER], ANSWER) is Stage.FIRST
    assert stage(replace(reasoning, max_reasoning_tokens=0), [], ANSWER) is Stage.END_REASONING


def test_objects_are_never_sampled(both: tuple[Moondream2, Moondream2Processor]) -> None:
    """Whatever the sampler chooses."""
    model = both[0]

    def adverse(logits: Tensor) -> Sampled:
        return Sampled(logits.argmin(dim=-1), torch.zeros(len(logits)))

    for inputs in asked(both)[4:6]:
        row = answer(model, inputs, MOST, features_of(model, inputs))
        with torch.inference_mode():
            for cut in range(len(row.generated)):
                written = Alone(inputs, row.generated[:cut])
                hidden = prefilled(model, inputs, None, written.generated)[1]
                assert int(model.decode(hidden, [written], adverse).tokens) == row.generated[cut]


def test_log_probabilities_of_an_object_are_those_of_its_numbers(
    both: tuple[Moondream2, Moondream2Processor],
) -> None:
    model, detect = both[0], asked(both)[4]
    row = answer(model, detect, 3, features_of(model, detect))
    hidden = state(model, detect)
    with torch.inference_mode():
        words = torch.softmax(model.logits(hidden)[0], dim=-1)
        spots = torch.softmax(model.region.coordinate_logits(hidden)[0], dim=-1)
    assert row.logprobs[0] == pytest.approx(float(((1 - words[EOS]) * spots.max()).log()), abs=1e-4)
    assert all(logprob < 0 for logprob in row.logprobs)


def test_log_probabilities_are_left_out_unless_asked_for(both: tuple[Moondream2, Moondream2Processor]) -> None:
    rows = [Alone(inputs) for inputs in asked(both)]
    hidden = torch.zeros(len(rows), both[0].text.spec.width)
    step = both[0].decode(hidden, rows, lambda logits: Sampled(logits.argmax(dim=-1), None))
    assert step.logprobs is None


def test_token_logits_are_not_computed_where_no_row_needs_them(
    both: tuple[Moondream2, Moondream2Processor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output matrix is the largest one; y and size do not need it."""
    model, detect = both[0], asked(both)[4]
    monkeypatch.setattr(model, "logits", lambda hidden: pytest.fail("no row chooses a token"))
    for written in ([400], [400, 400]):
        assert token_of(model, replace(detect, pixels=None), written) >= model.vocabulary


def test_an_adverse_folder_of_the_same_sizes_loads(tmp_path: Path) -> None:
    synthesize(FAMILY, tmp_path, FAMILY.sizes["tiny"], 9)
    model, processor = load(tmp_path)
    assert processor.vocabulary.size == model.vocabulary == 320
    assert model.cache.prefix_positions == processor.prefix == 17
